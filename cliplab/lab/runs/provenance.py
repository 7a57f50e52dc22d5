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
    import psutil
    import torch

    from cliplab import __version__

    sha = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain")
    cuda = torch.cuda.is_available()
    return {
        "git_sha": sha,
        "git_dirty": None if status is None else bool(status),
        "versions": {
            "cliplab": __version__,
            "python": platform.python_version(),
            **asked_for(),
        },
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "device": torch.cuda.get_device_name() if cuda else device_type(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "threads": {"torch": torch.get_num_threads(), "omp": os.environ.get("OMP_NUM_THREADS")},
        "kernel": "stock",
        "peak_memory_mb": _peak_memory_mb(),
        "recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
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
