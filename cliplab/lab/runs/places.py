"""Where a kernel finds a module whose version says nothing: beside the notebook, or on the path.

A module of the standard library, or one in a site-packages folder, is none of these; what is
installed in editable mode is.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from importlib.util import find_spec
from os.path import isdir, isfile
from pathlib import Path

INSTALLED = {"site-packages", "dist-packages"}
SUFFIXES = (*EXTENSION_SUFFIXES, *SOURCE_SUFFIXES, *BYTECODE_SUFFIXES)  # in Python's order


@dataclass(frozen=True)
class Places:
    """The folders that are first on a kernel's path, its own before all; then the usual ones.

    What the notebook itself has ``written`` is not looked at: the cell that does so is code.
    """

    folders: tuple[Path, ...] = ()
    written: frozenset[Path] = frozenset()

    def base(self, top: str) -> Path | None:
        """The path, without a suffix, of a top-level module; None: it has a version, or is none."""
        if not top.isidentifier():
            return None
        beside = [f / top for f in self.folders if file_of(f / top) not in self.written]
        for base in filter(file_of, beside):
            return base
        found = [] if top in sys.stdlib_module_names else list(_on_the_path(top))
        found = found or [base for base in beside if isdir(base)]  # without an __init__
        return None if not found or any(map(_has_version, found)) else found[0]


def file_of(base: Path) -> Path | None:
    """The file of the module at a path without a suffix; of a package its ``__init__``."""
    for name in (base / "__init__", base):
        for suffix in SUFFIXES:
            path = name.with_name(name.name + suffix)
            if isfile(path):
                return path
    return None


def _on_the_path(top: str) -> Iterator[Path]:
    """Where this Python finds a module, without importing it."""
    try:
        spec = find_spec(top)
    except (ImportError, AttributeError, ValueError):
        return
    if spec and spec.submodule_search_locations is not None:
        yield from filter(isdir, map(Path, spec.submodule_search_locations))
    elif spec and spec.origin and spec.has_location:
        path = Path(spec.origin)
        yield path.with_name(path.name.partition(".")[0])


def _has_version(base: Path) -> bool:
    library = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    return not INSTALLED.isdisjoint(base.parts) or any(map(base.is_relative_to, library))
