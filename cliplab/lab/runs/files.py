"""Files that are there whole or not at all, and folders that can take them."""

from __future__ import annotations

import os
import re
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old one or the new one, also after a crash.

    What UTF-8 cannot hold, half of a surrogate pair, is written as its escape sequence.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}")
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    try:
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def leftovers(folder: Path) -> list[Path]:
    """Files that a killed :func:`write_atomic` left there, not yet in their place."""
    return [path for path in folder.iterdir() if is_leftover(path)]


def is_leftover(path: Path) -> bool:
    """Whether this is the name of a file that :func:`write_atomic` has not yet put in its place."""
    return bool(re.fullmatch(r"\..+\.\d+\.[0-9a-f]{8}", path.name))


def set_aside(path: Path) -> Path:
    """Rename what is damaged, so that nothing of it is lost; its new place."""
    for number in count():
        aside = path.with_name(f"{path.name}.damaged{number or ''}")
        if not os.path.lexists(aside):
            return path.rename(aside)
    raise AssertionError


def check_writable(folder: Path, flag: str) -> None:
    """Make a folder that a flag of the command line names; ``ValueError`` if it takes no file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(bytes(2**16))
    except OSError as error:
        raise ValueError(f"cannot write in {flag} {folder}: {error.strerror}") from None
