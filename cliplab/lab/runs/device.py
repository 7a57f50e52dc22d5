"""Which kind of device numbers are made on, found without torch where there can be only one."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DEVICES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")  # NVIDIA's, Tegra's, WSL's, AMD's


@cache
def device_type() -> str:
    """``"cuda"``, ``"mps"`` or ``"cpu"``; torch is asked, unless no accelerator can be there."""
    if "torch" not in sys.modules and not _accelerator_possible():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _accelerator_possible(dev: Path = Path("/dev")) -> bool:
    """Whether this build of torch could use one, and one's device file is there (Linux)."""
    try:
        build = version("torch")
    except PackageNotFoundError:
        return True  # torch says best that it is missing
    if sys.platform != "linux":
        return True
    return not build.endswith("+cpu") and any(any(dev.glob(name)) for name in DEVICES)
