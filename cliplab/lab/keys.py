"""What a result depends on, as hashes: a notebook's code, its parameters, the environment.

Markdown, outputs and the parameters cell's source are not part of it. Data files enter through the
sha256 pinned in the modules that fetch them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.cells import is_parameters_cell, load_cells

PACKAGE = Path(__file__).resolve().parents[1]
PINNED = ("torch", "numpy", "scipy", "gymnasium", "arch", "music21", "espeakng-loader")


def digest(value: object) -> str:
    """Sha256 of the canonical JSON of a value.

    >>> digest({"a": 1, "b": 2.0}) == digest({"b": 2.0, "a": 1}) != digest({"a": 1.0, "b": 2.0})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def code_key(notebook: Path, package: Path = PACKAGE) -> str:
    """Hash of the notebook's code cells and of every cliplab module they reach."""
    cells = [
        cell["source"]
        for cell in load_cells(notebook)
        if cell["cell_type"] == "code" and not is_parameters_cell(cell) and cell["source"].strip()
    ]
    try:
        modules = import_closure("\n".join(_without_magics(cell) for cell in cells), package)
    except SyntaxError as error:
        raise ValueError(f"{notebook}: {error.msg}: {(error.text or '').strip()!r}") from None
    sources = {
        path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in modules
    }
    return digest([cells, sources])


def run_key(code_key: str, params: Mapping[str, Any]) -> str:
    """Hash of everything a run's numbers depend on."""
    return digest([code_key, dict(params), environment()])


def environment() -> dict[str, Any]:
    """Device type, Python minor version, versions of the numerical packages."""
    return {
        "device": _device_type(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: installed(name) for name in PINNED},
    }


@cache
def _device_type() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@cache
def installed(package: str) -> str | None:
    """The installed version of a package, None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def import_closure(code: str, package: Path = PACKAGE) -> list[Path]:
    """Files of the package's modules that ``code`` reaches by import statements, sorted.

    Followed recursively, relative imports and those inside functions included; importing a
    submodule imports its parents. A module named by a string (lazy imports) counts too.
    """
    found: set[Path] = set()
    waiting = list(_modules(code, "", package))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            parts = (package.name, *path.relative_to(package).with_suffix("").parts)
            parent = ".".join(parts[:-1])  # of a package's __init__ too: the package itself
            waiting += _modules(path.read_text(encoding="utf-8"), parent, package)
    return sorted(found)


def _modules(source: str, parent: str, package: Path) -> Iterator[Path]:
    """Files of the modules imported by one source, whose package is ``parent``."""
    for name in _imported_names(source, parent, package.name):
        parts = name.split(".")[1:]
        for depth in range(len(parts) + 1):
            base = package.joinpath(*parts[:depth])
            for path in (base / "__init__.py", base.with_suffix(".py")):
                if path.is_file() and path.is_relative_to(package):
                    yield path


@cache
def _imported_names(source: str, parent: str, package: str) -> tuple[str, ...]:
    """Dotted names below ``package``; what follows a module's own name is ignored by the caller."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parent.split(".")[: len(parent.split(".")) - node.level + 1]
            prefix = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            names += [f"{prefix}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and re.fullmatch(
            rf"{package}(\.\w+)+", str(node.value)
        ):
            names.append(str(node.value))
    return tuple(name for name in names if name.split(".")[0] == package)


def _without_magics(source: str) -> str:
    """The cell without IPython's ``%magic``, ``!shell`` and ``help?`` lines, if it has any."""
    try:
        ast.parse(source)
        return source
    except SyntaxError:
        pass
    if source.lstrip().startswith("%%"):
        return ""
    return "\n".join(
        re.sub(r"\S.*", "pass", line)
        if re.match(r"\s*[%!]", line) or line.rstrip().endswith("?")
        else line
        for line in source.splitlines()
    )
