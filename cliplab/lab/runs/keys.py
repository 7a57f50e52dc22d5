"""What a result depends on, as hashes: a notebook's code, its parameters, the environment.

Markdown, outputs and the parameters cell's source are not part of it, nor is prose in the code (see
canonical.py). Data files enter through the sha256 pinned in the modules that fetch them.
"""

from __future__ import annotations

import ast
import platform
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.cells import is_parameters_cell, load_cells
from cliplab.lab.runs.canonical import digest, form_of
from cliplab.lab.runs.closure import Closure, closure_of
from cliplab.lab.runs.device import device_type
from cliplab.lab.runs.faces import PACKAGE
from cliplab.lab.runs.syntax import effective
from cliplab.lab.runs.versions import versions

__all__ = [
    "KIND",
    "closure",
    "code_key",
    "device_type",
    "digest",
    "environment",
    "made_of",
    "run_key",
]

KIND = 2  # which kind of code_key this module computes; 1 hashed the bytes of all files imported


def code_key(notebook: Path, package: Path = PACKAGE) -> str:
    """Hash of the notebook's cells and of the cliplab code that they reach."""
    return closure(notebook, package).key


def closure(notebook: Path, package: Path = PACKAGE) -> Closure:
    """The notebook's code and all that it reaches; ``ValueError`` if a cell is not Python."""
    trees = []
    for cell in load_cells(notebook):
        if cell["cell_type"] == "code" and not is_parameters_cell(cell):
            try:
                tree = _parsed(cell["source"])
            except SyntaxError as error:
                line = (error.text or "").strip()
                raise ValueError(f"{notebook}: {error.msg}: {line!r}") from None
            if any(effective(tree.body)):
                trees.append(tree)
    return closure_of(form_of(trees, "", package.name), package)


def run_key(code_key: str, params: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Hash of everything a run's numbers depend on."""
    return digest([code_key, dict(params), dict(environment)])


def environment(code: Closure) -> dict[str, Any]:
    """Device type, Python minor version, versions of the distributions that the code imports."""
    return {"device": device_type(), "python": python_minor(), **versions(code.outside)}


def python_minor() -> str:
    """The Python version that numbers depend on, as "3.12"."""
    return ".".join(platform.python_version_tuple()[:2])


def made_of(code: Closure) -> dict[str, Any]:
    """The parts of a code key, short: hashes of the cells, and of each definition by its name."""
    hashes: dict[str, list[str]] = defaultdict(list)
    for name, definitions in code.definitions().items():
        hashes[name] += [d.hash for d in definitions if d.kind != "import"]
    return {
        "cells": [part[:12] for part in code.root.parts],
        "definitions": {name: digest(found)[:12] for name, found in hashes.items() if found},
    }


def _parsed(source: str) -> ast.Module:
    """A cell's syntax, with IPython's ``%magic``, ``!shell`` and ``help?`` lines as calls.

    >>> ast.unparse(_parsed("if x:\\n    !ls"))
    "if x:\\n    get_ipython('!ls')"
    """
    try:
        return ast.parse(source)
    except SyntaxError:
        pass
    if source.lstrip().startswith("%%"):
        return ast.parse(f"get_ipython({source!r})")
    lines = (
        re.sub(r"\S.*", lambda found: f"get_ipython({found[0]!r})", line)
        if re.match(r"\s*[%!]", line) or line.rstrip().endswith("?")
        else line
        for line in source.splitlines()
    )
    return ast.parse("\n".join(lines))
