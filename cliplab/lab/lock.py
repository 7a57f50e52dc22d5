"""A lock on a folder, for processes of one or of several machines; it ends with its holder."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Taken(RuntimeError):
    """Another process holds the lock."""


class NoLocks(RuntimeError):
    """The folder's file system has no locks."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` (made if need be), or raise :class:`Taken` at once.

    It is ``flock`` on a file ``.lock`` there, which the holder removes in the end.
    """
    path = folder / ".lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Taken(str(folder)) from None
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
                raise NoLocks(f"the file system of {folder} has no locks (flock)") from None
            if not _is_at(file.fileno(), path):
                continue  # its last holder has just removed it
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
