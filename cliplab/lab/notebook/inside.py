"""What code can tell of the notebook that it runs in."""

from __future__ import annotations

import os
from typing import Any

ASKED = "CLIPLAB_VERSIONS"  # a batch sets it for its kernels: which versions they record


def in_batch() -> bool:
    """Whether a batch of cliplab started this process, and nobody looks on."""
    return ASKED in os.environ


def notebook_shell() -> Any:
    """The IPython shell of the kernel that this is; None where it is none."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    shell = get_ipython()
    return shell if hasattr(shell, "kernel") else None
