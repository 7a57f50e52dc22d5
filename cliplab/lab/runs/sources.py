"""The form of anybody's file: a module, a notebook, or bytes that nothing here can read."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import decode_source
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.cells import is_parameters_cell, read_notebook
from cliplab.lab.runs.canonical import Definition, Form, digest, form, form_of
from cliplab.lab.runs.magics import parsed
from cliplab.lab.runs.syntax import effective, named, parse, texts


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
    sources = [
        cell["source"]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        and not (injected and is_parameters_cell(cell) and only_literals(cell["source"]))
    ]
    if is_python(notebook):
        with suppress(RecursionError):
            trees = map(parsed, sources)
            return form_of([tree for tree in trees if any(effective(tree.body))], "", top)
    parts = tuple(map(digest, sources))
    return Form(digest(parts), parts, (), {}, ())


def is_python(notebook: Mapping[str, Any]) -> bool:
    """Whether a notebook is in Python, as all are that do not say otherwise."""
    metadata = _table(notebook.get("metadata"))
    kernel, language = _table(metadata.get("kernelspec")), _table(metadata.get("language_info"))
    said = kernel.get("language") or language.get("name") or "python"
    return str(said).lower() in ("python", "python3", "ipython")


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def only_literals(source: str) -> bool:
    """Whether a cell only gives names JSON values, so that these are all that depends on it.

    >>> only_literals("lr: float = 0.1\\nsizes = [1, 2]"), only_literals("n = 2\\nm = n * 2")
    (True, False)
    """
    try:
        statements = list(effective(parse(source).body))
    except SyntaxError:
        return False
    names = list(map(_given, statements))
    return None not in names and len(set(names)) == len(names)


def _given(node: ast.stmt) -> str | None:
    """The name to which a statement gives a JSON value."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not node.value:
        return None
    try:
        value = ast.literal_eval(node.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    (target,) = targets if len(targets) == 1 else (None,)
    return target.id if isinstance(target, ast.Name) and _is_json(value) else None


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and _is_json(list(value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | int | float)


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
