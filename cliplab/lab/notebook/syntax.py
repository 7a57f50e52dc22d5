"""A cell's syntax: Python, and what only IPython reads, as calls."""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache


def as_python(source: str) -> str:
    """The source of a cell, with magics, ``!shell`` and ``help?`` as IPython translates them.

    ``SyntaxError``: it is not Python even so. IPython is imported only where it is needed.

    >>> as_python("lr = 0.1"), as_python("files = !ls")
    ('lr = 0.1', "files = get_ipython().getoutput('ls')\\n")
    """
    try:
        _parse(source)
        return source
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        translated: str = TransformerManager().transform_cell(source)
        _parse(translated)
        return translated


@lru_cache
def statements(source: str) -> tuple[ast.stmt, ...]:
    """What a cell does, in order; ``SyntaxError`` if it is not Python."""
    return tuple(_parse(as_python(source)).body)


def bound_names(node: ast.AST) -> list[str]:
    """The names that a statement gives values, also in its blocks; no functions or modules.

    >>> bound_names(ast.parse("for i in x: a, b = c, [d for d in e]"))
    ['i', 'a', 'b']
    """
    names = [
        found.id
        for part in ("targets", "target", "items")
        for target in _listed(getattr(node, part, []))
        for found in ast.walk(getattr(target, "optional_vars", None) or target)
        if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store)
    ]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for part in ("body", "handlers", "orelse", "finalbody", "cases"):
            for inner in _listed(getattr(node, part, [])):
                names += bound_names(inner)
    return names


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes like "\\d": Python says so when it runs
        try:
            return ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:  # null bytes, far too nested
            raise SyntaxError(str(error)) from None


def _listed(found: object) -> list[ast.AST]:
    return found if isinstance(found, list) else [found] if isinstance(found, ast.AST) else []
