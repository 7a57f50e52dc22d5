"""Processes that a run leaves nothing of: found, measured and ended with all their children."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

import psutil

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent ends (Linux), so that none gets lost."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def descendants() -> set[psutil.Process]:
    """Children of this process, theirs, and so on."""
    return set(psutil.Process().children(recursive=True))


def end(processes: Collection[psutil.Process]) -> None:
    """Kill processes, those that may be killed, and wait until they are gone."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def memory_bytes(processes: Iterable[psutil.Process], limit: float) -> float:
    """Memory of processes; exact above ``limit`` only (shared pages are then counted once)."""
    total = _sum(lambda process: process.memory_info().rss, processes)
    if total > limit and sys.platform == "linux":
        total = _sum(lambda process: process.memory_full_info().pss, processes)
    return total


def _sum(measure: Callable[[psutil.Process], float], processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            total += measure(process)
    return total


def end_with(reader: Any, clean_up: Callable[[], None]) -> None:
    """End this process and its children as soon as nobody holds the writing end of a pipe."""

    def watch() -> None:
        with suppress(EOFError, OSError):
            reader.recv()
        try:
            end(descendants())
            clean_up()
        finally:
            os._exit(1)

    threading.Thread(target=watch, name="leash", daemon=True).start()
