"""Where a number comes from."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cliplab.lab.runs.keys import device_type
from cliplab.lab.runs.versions import asked_for


def provenance() -> dict[str, Any]:
    """Where a number comes from: code, versions, hardware, threads, peak memory of this process."""
    import torch

    return surroundings(Path.cwd()) | {
        "threads": {"torch": torch.get_num_threads(), "omp": os.environ.get("OMP_NUM_THREADS")},
        "kernel": "stock",
        "peak_memory_mb": _peak_memory_mb(),
        "recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def surroundings(folder: Path) -> dict[str, Any]:
    """What of it is no process's own: code, versions, hardware; without torch on a CPU.

    ``folder``: where the notebook runs.
    """
    import psutil

    from cliplab import __version__

    package, tracked = Path(__file__).parent, ["ls-files", "--error-unmatch"]
    ours = _git(package, *tracked, Path(__file__).name) is not None
    sha, dirty = _commit(package) if ours else (None, None)
    notebook_sha, notebook_dirty = _commit(folder)
    return {
        "git_sha": sha,
        "git_dirty": dirty,
        "notebook_git_sha": notebook_sha,
        "notebook_git_dirty": notebook_dirty,
        "versions": {
            "cliplab": __version__,
            "python": platform.python_version(),
            **asked_for(),
        },
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "device": _device(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def _device() -> str:
    kind = device_type()
    if kind != "cuda":
        return kind
    import torch

    return str(torch.cuda.get_device_name())


def _commit(folder: Path) -> tuple[str | None, bool | None]:
    """The commit that is checked out in a folder, and whether anything there differs from it."""
    sha = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain") if sha else None
    return sha, None if status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _peak_memory_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
