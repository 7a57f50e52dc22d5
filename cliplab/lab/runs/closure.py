"""The modules that code reaches by its imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]


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
