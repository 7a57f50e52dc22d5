"""What a syntax tree says: imports, chains of attributes, which statements have an effect."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
RUN = "./"  # begins the name of what has a path: a file that is run, a folder where modules are
WRITES = ".>"  # begins the name of a file that a cell writes


class Import(NamedTuple):
    """``from module import name as local``; no ``name``: the module itself; ``*``: all of it."""

    local: str
    name: str
    module: str


def chain(node: ast.Name | ast.Attribute) -> tuple[str, ...]:
    """``a.b.c`` as (a, b, c); nothing where it does not start with a name."""
    attributes: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        attributes.append(inner.attr)
        inner = inner.value
    return (inner.id, *reversed(attributes)) if isinstance(inner, ast.Name) else ()


def functions_in(statement: ast.stmt) -> Iterator[Function]:
    """Functions that an ``if``, ``try``, ``with`` or loop defines."""
    for name in ("body", "orelse", "finalbody", "handlers"):
        if isinstance(statement, Function | ast.ClassDef):
            return
        for inner in getattr(statement, name, []):
            if isinstance(inner, Function):
                yield inner
            yield from functions_in(inner)


def effective(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements without docstrings, ``pass``, ``...`` and what only type checkers see."""
    for node in statements:
        if isinstance(node, ast.If) and last_name(node.test) == "TYPE_CHECKING":
            yield from effective(node.orelse)
        elif not (
            isinstance(node, ast.Pass)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        ):
            yield node


def last_name(node: ast.expr) -> str:
    """The last part of the name that an expression calls or reads: ``no_grad`` of ``@t.no_grad()``.

    >>> last_name(ast.parse("torch.no_grad()", mode="eval").body)
    'no_grad'
    """
    while isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def imports_of(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[Import]:
    """What a statement binds; ``import a.b`` binds a, and means a.b as well."""
    if isinstance(node, ast.ImportFrom):
        parents = package.split(".")
        base = parents[: len(parents) - node.level + 1] if node.level else []
        module = ".".join([*base, *filter(None, [node.module])])
        for alias in node.names:
            yield Import(alias.asname or alias.name, alias.name, module)
        return
    for alias in node.names:
        if alias.asname:
            yield Import(alias.asname, "", alias.name)
        else:
            top = alias.name.split(".")[0]
            yield Import(top, "", top)
            if top != alias.name:
                yield Import("", "", alias.name)


def texts(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The texts in some expressions, in order."""
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        yield from texts(ast.iter_child_nodes(node))


def named(statement: ast.stmt) -> str:
    """The names that a statement binds, or what kind of statement it is."""
    if isinstance(statement, Function):
        return statement.name
    names = [
        node.id if isinstance(node, ast.Name) else node.name
        for node in ast.walk(statement)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        or isinstance(node, Function | ast.ClassDef)
    ]
    return ",".join(dict.fromkeys(names)) or f"<{type(statement).__name__}>"


def merged(parts: list[Any]) -> list[Any]:
    """Neighbouring texts of an f-string as one, as Python versions differ in where they cut."""
    merged: list[Any] = []
    for part in parts:
        if part == ["str", ""]:
            continue
        if part[0] == "str" and merged and merged[-1][0] == "str":
            part = ["str", merged.pop()[1] + part[1]]
        merged.append(part)
    return merged
