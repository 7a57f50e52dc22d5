"""What a result depends on, as hashes: a notebook's code, its parameters, the environment.

Markdown, outputs and the parameters cell's source are not part of it. Data files enter through the
sha256 pinned in the modules that fetch them.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.cells import is_parameters_cell, load_cells
from cliplab.lab.runs.closure import PACKAGE, _without_magics, import_closure

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
