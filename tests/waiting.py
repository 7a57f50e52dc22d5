"""What tests of processes wait for."""

import time
from collections.abc import Callable

import psutil

LONG = 300.0  # seconds after which nothing comes any more, on a slow and busy machine


def wait_until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds; fail when it does not."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(process: psutil.Process | int) -> bool:
    """Whether it ended, reaped or not (the first process of a container may not reap)."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
