"""The form of anybody's file: a module, a notebook, or bytes that nothing here can read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import decode_source
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.cells import read_notebook, tagged
from cliplab.lab.notebook.declarations import only_literals
from cliplab.lab.notebook.kernel import is_python, language_of
from cliplab.lab.notebook.syntax import parse
from cliplab.lab.runs.canonical import Definition, Form, digest, form, form_of
from cliplab.lab.runs.magics import parsed
from cliplab.lab.runs.syntax import effective, named, texts


def form_of_file(path: Path, package: str, top: str) -> Form:
    """A file's form, of its bytes where it is no Python; never an error for what it holds."""
    try:
        content = path.read_bytes()
    except OSError:  # it says so when it is imported
        content = b""
    try:
        if path.suffix == ".ipynb":
            return form_of_notebook(read_notebook(path), top)
        return form(decode_source(content), package, top)
    except (SyntaxError, ValueError, RecursionError):
        found = hashlib.sha256(content).hexdigest()
        return Form(found, (found,), (), {}, (Definition("file", "body", found, 1),))


def form_of_notebook(notebook: Mapping[str, Any], top: str, injected: bool = False) -> Form:
    """The form of a notebook's cells, in another language than Python of their text.

    ``injected``: its parameters get their values from outside, so that a parameters cell of nothing
    but literals is not part of it.
    """
    cells = notebook["cells"]
    parameters = tagged(cells, "parameters") if injected else None
    sources = [
        cell["source"]
        for i, cell in enumerate(cells)
        if cell["cell_type"] == "code" and not (i == parameters and only_literals(cell["source"]))
    ]
    if is_python(language_of(notebook)):
        with suppress(RecursionError):
            trees = map(parsed, sources)
            return form_of([tree for tree in trees if any(effective(tree.body))], "", top)
    parts = tuple(map(digest, sources))
    return Form(digest(parts), parts, (), {}, ())


def offered(init: Path) -> set[str]:
    """The modules that a package's ``__init__`` gives without importing them itself.

    Those named in ``__all__``, for ``from package import *``; all, where it has a ``__getattr__``.
    """
    found: set[str] = set()
    try:
        statements = parse(decode_source(init.read_bytes())).body
    except (SyntaxError, ValueError, OSError):
        return found
    for node in statements:
        names = named(node).split(",")
        if "__getattr__" in names:
            found |= {path.name.partition(".")[0] for path in init.parent.iterdir()}
        elif "__all__" in names:
            found.update(texts([node]))
    return found - {"__init__"}
