"""A lock on a folder, for processes of one or of several machines; it ends with its holder."""

from __future__ import annotations

import errno
import fcntl
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

    It is ``flock`` on a file ``.lock`` there, which stays: to remove it would let two hold it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Taken(str(folder)) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            raise NoLocks(f"the file system of {folder} has no locks (flock)") from None
        yield
