"""A cell's syntax: Python, and what only IPython reads, as calls."""

from __future__ import annotations

import ast
import warnings


def parse(source: str) -> ast.Module:
    """The syntax of Python that may be anybody's; ``SyntaxError`` if it is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes like "\\d": Python says so when it runs
        try:
            return ast.parse(source)
        except (ValueError, RecursionError, MemoryError) as error:  # null bytes, far too nested
            raise SyntaxError(str(error)) from None


def parsed(source: str) -> tuple[str, list[ast.stmt]]:
    """A cell as Python, and its statements: magics, ``!shell`` and ``help?`` as IPython has them.

    ``SyntaxError``: it is not Python even so. IPython is imported only where it is needed.

    >>> parsed("files = !ls")[0]
    "files = get_ipython().getoutput('ls')\\n"
    """
    try:
        return source, parse(source).body
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        translated: str = TransformerManager().transform_cell(source)
        return translated, parse(translated).body


def statements(source: str) -> list[ast.stmt]:
    """What a cell does, in order; ``SyntaxError`` if it is not Python."""
    return parsed(source)[1]


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


def _listed(found: object) -> list[ast.AST]:
    return found if isinstance(found, list) else [found] if isinstance(found, ast.AST) else []
