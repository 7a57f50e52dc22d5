"""x"""

from __future__ import annotations

from typing import Any


def open_executor(name: str, jobs: int) -> Any:
    """stub"""
    from cliplab.lab.local import LocalExecutor

    if name != "local":
        raise ValueError(
            f"--executor {name!r}: expected local, dask, dask://HOST:PORT or dask:CLUSTER.yaml"
        )
    return LocalExecutor(jobs)
