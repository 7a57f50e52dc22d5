"""A process's folder for its kernels' sockets: it ends with the process, however that ends.

One that was killed leaves it: the next process that needs a folder removes those whose locks nobody
holds. A lock ends with its holder, while a process's number may be another's by then.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

PREFIX, LOCK = "cliplab-sockets-", ".lock"


class Scratch:
    """A new folder in the temporary directory, kept from others by a lock in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT)  # until it ends
        with suppress(OSError):  # no locks there: nobody else gets one either
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def exists(self) -> bool:
        """Whether nobody removed it before it was locked."""
        return os.fstat(self._lock).st_nlink > 0

    def remove(self) -> None:
        """Remove it and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def scratch() -> Scratch:
    """This process's own, made when it is first asked for."""
    return _scratch_of(os.getpid())


@cache
def _scratch_of(pid: int) -> Scratch:
    remove_forsaken()
    while not (made := Scratch()).exists():
        pass
    atexit.register(made.remove)
    return made


def remove_forsaken() -> None:
    """Remove the folders of processes that were killed."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
