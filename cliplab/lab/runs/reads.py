"""The files that a notebook reads: those it declares, by content, and those it should declare.

A notebook declares them in its metadata, relative to its folder, ``*`` and ``**`` allowed; a folder
stands for all files below it: ``{"cliplab": {"reads": ["data.csv", "more/*.csv", "images"]}}``.
``may_read`` lists, in the same way, what need not be there; ``ignores`` what it reads and no number
depends on.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from glob import glob
from pathlib import Path
from typing import Any

from cliplab.lab.runs.closure import Closure

CLAIMS = "claims.toml"
SETTLED_NS = 2 * 10**9  # a file may change twice within what its times can tell
_hashes: dict[tuple[Path, int, int, int, int], str] = {}


def declared(notebook: Mapping[str, Any], path: Path) -> dict[str, str]:
    """The sha256 of each file that the notebook at ``path`` declares, by name.

    ``ValueError`` where the declaration is no list of text, or ``reads`` names what is not there.
    """
    where = f"{path}: metadata.cliplab.reads"
    files: set[str] = set()
    for one in _listed(notebook, path, "reads"):
        found = set(_files(path.parent, one))
        if not found:
            raise ValueError(f"{where}: {one!r} names no file in {path.parent}")
        files |= found
    for one in _listed(notebook, path, "may_read"):
        files |= set(_files(path.parent, one))
    try:
        return {Path(name).as_posix(): _sha256(path.parent / name) for name in sorted(files)}
    except OSError as error:
        raise ValueError(f"{where}: cannot read {error.filename}: {error.strerror}") from None


def ignored(notebook: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Patterns of files that the notebook reads and on which, as it says, no number depends.

    ``ValueError`` where ``metadata.cliplab.ignores`` is no list of text.
    """
    return tuple(_listed(notebook, path, "ignores"))


def _listed(notebook: Mapping[str, Any], path: Path, kind: str) -> list[str]:
    found: Any = notebook
    for name in ("metadata", "cliplab", kind):
        found = found.get(name) if isinstance(found, dict) else None
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise ValueError(f"{path}: metadata.cliplab.{kind}: {found!r} is not a list of file names")
    return found


def _files(folder: Path, pattern: str) -> Iterator[str]:
    """The files that a name or a pattern means, each by its name relative to the folder."""
    try:
        there = (folder / pattern).exists()
        found = [pattern] if there else glob(pattern, root_dir=folder, recursive=True)
    except (OSError, ValueError):  # a name with a null byte, or too long
        return
    for name in found:
        if (folder / name).is_dir():
            yield from (os.path.relpath(path, folder) for path in _below(folder / name))
        elif (folder / name).is_file():
            yield os.path.normpath(name)


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder and in those below it, linked ones as well; nothing hidden."""
    seen: set[str] = set()
    for base, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        folders[:] = [] if real in seen else [f for f in folders if not _is_hidden(f)]
        if real not in seen:
            paths = (Path(base, name) for name in names if not _is_hidden(name))
            yield from filter(Path.is_file, paths)
        seen.add(real)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


def _sha256(path: Path) -> str:
    """The hash of a file; a file that did not change is read once in a process."""
    stat = path.stat()
    known = (path, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if known in _hashes:
        return _hashes[known]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED_NS:
        _hashes[known] = found
    return found


def undeclared(opened: Path, code: Closure) -> list[str]:
    """Files that a run read below the kernel's folder and that its key does not hold.

    ``opened`` is what the kernel noted (lab/kernels/watch.py). Names are relative to that folder.
    Hidden files are not among them, nor cliplab's own, nor what the closure has, nor the claims
    that ``judge`` looks up: they make no number; nor what the notebook ignores. Characters that
    cannot be shown are escaped.
    """
    folder = os.path.realpath(code.beside)
    declared = (code.home / name for name in (*code.reads, CLAIMS))
    known = {os.path.realpath(path) for path in (*code.names, *declared)}
    entries = opened.read_bytes().split(b"\0")[:-1] if opened.exists() else []
    names = {
        os.path.relpath(path, folder)
        for path in map(_source_of, map(os.fsdecode, entries))
        if os.path.realpath(path) not in known and not Path(path).is_relative_to(code.folder)
    }
    shown = sorted(
        name
        for name in names
        if not any(map(_is_hidden, Path(name).parts))
        and not any(fnmatch(name, pattern) for pattern in code.ignores)
    )
    return [name if name.isprintable() else ascii(name)[1:-1] for name in shown]


def _source_of(path: str) -> str:
    """``x.py`` of ``__pycache__/x.cpython-312.pyc``."""
    folder, name = os.path.split(path)
    if os.path.basename(folder) != "__pycache__" or not name.endswith(".pyc"):
        return path
    return os.path.join(os.path.dirname(folder), name.partition(".")[0] + ".py")
