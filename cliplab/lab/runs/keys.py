"""What a result depends on, as hashes: a notebook's code, its parameters, the environment.

Code is that of the cells and of the modules that they reach: cliplab's, those beside the notebook,
and others on the path that are not installed. Markdown, outputs and a parameters cell of literals
are not part of it, nor is prose in the code (see canonical.py). Data files enter through the sha256
pinned in the modules that fetch them, or as the notebook declares them (see reads.py).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.cells import read_notebook
from cliplab.lab.notebook.kernel import DEFAULT
from cliplab.lab.runs.canonical import digest
from cliplab.lab.runs.closure import Closure, closure_of
from cliplab.lab.runs.device import device_type
from cliplab.lab.runs.faces import PACKAGE
from cliplab.lab.runs.interpreter import interpreter
from cliplab.lab.runs.reads import declared, ignored
from cliplab.lab.runs.sources import form_of_notebook

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
    """Hash of the notebook's cells, and of the code and files that they reach."""
    return closure(notebook, package).key


def closure(notebook: Path, package: Path = PACKAGE, beside: Path | None = None) -> Closure:
    """The notebook's code and all that it reaches; ``beside``: where it runs, if not in its folder.

    ``ValueError`` if it is no notebook, or declares files that are not there; ``ImportError`` if
    IPython is needed to read a cell, and is not installed.
    """
    document, home = read_notebook(notebook), notebook.absolute().parent
    return closure_of(
        form_of_notebook(document, package.name, injected=True),
        package,
        beside=(beside or home).absolute(),
        home=home,
        reads=declared(document, home / notebook.name),
        ignores=ignored(document, home / notebook.name),
    )


def run_key(code_key: str, params: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Hash of everything a run's numbers depend on."""
    return digest([code_key, dict(params), dict(environment)])


def environment(code: Closure, kernel_name: str = DEFAULT) -> dict[str, Any]:
    """Device type, Python minor version, versions of the distributions that the code imports.

    Where the notebook runs, from its own folder, if it is not that one: a project moves as a whole.
    """
    found = {"device": device_type(), **interpreter(kernel_name, code.outside)}
    cwd = os.path.relpath(code.beside, code.home)
    return found if cwd == os.curdir else {**found, "cwd": cwd}


def made_of(code: Closure) -> dict[str, Any]:
    """The parts of a code key, short: hashes of the cells, and of each definition by its name."""
    hashes: dict[str, list[str]] = defaultdict(list)
    for name, definitions in code.definitions().items():
        hashes[name] += [d.hash for d in definitions if d.kind != "import"]
    return {
        "cells": [part[:12] for part in code.root.parts],
        "definitions": {name: digest(found)[:12] for name, found in hashes.items() if found},
        **({"reads": {name: sha[:12] for name, sha in code.reads.items()}} if code.reads else {}),
    }
