"""What a parameters cell declares."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from cliplab.lab.notebook.syntax import bound_names, parsed, statements
from cliplab.lab.notebook.values import TYPES, Parameter, coerce, literal, plain

SEEDS = ("first_seed", "n_seeds")  # which part of an experiment a run is, not which experiment
# `name = value  # help` in languages other than Python, as most of them write it.
_FOREIGN = re.compile(
    r"(?:(?:val|var|let|const|local|my|export)\s+)?\$?([^\W\d][\w.]*)\s*(?:<-|:?=(?!=))\s*"
    r"(.*?)[;,]?\s*(?:(?:#|//|--|%)\s*(.*))?"
)


class Declared(NamedTuple):
    """One assignment of a parameters cell; the ``value`` is ``...`` where it is not as simple."""

    name: str
    type: str
    value: ast.expr
    comment: str


def parse_parameters(source: str) -> dict[str, Parameter]:
    """The parameters that the source of a cell gives values, in order, each as it is in the end.

    ``SyntaxError``: the cell is not Python; ``ValueError``: a default is not of its type.

    >>> parse_parameters("lr: float = 0.1  # step (per update) [> 0]")["lr"]
    Parameter(name='lr', type='float', default=0.1, help='step (per update)', bound='> 0', ...)
    >>> parse_parameters("n = 2 * 3  # how many")["n"]
    Parameter(name='n', type='', default='2 * 3', help='how many', bound=None, computed=True, ...)
    """
    found = {one.name: one for one in _declared(source)}
    axis = set(SEEDS) <= found.keys()  # an experiment: its lists are axes
    return {name: _parameter(one, axis) for name, one in found.items()}


def literals(source: str) -> dict[str, Any]:
    """The JSON values, as they stand there, that the source of a cell gives to names."""
    values = {}
    for name, one in {one.name: one for one in _declared(source)}.items():
        with suppress(ValueError, RecursionError):
            values[name] = plain(literal(one.value))
    return values


def only_literals(source: str) -> bool:
    """Whether a cell only gives JSON values to names, so that these are all that depends on it.

    >>> only_literals("lr: float = 0.1\\nsizes = [1, 2]"), only_literals("n = 2\\nm = n * 2")
    (True, False)
    """
    try:
        nodes, values = statements(source), literals(source)
    except SyntaxError:
        return False
    simple = [n for n in nodes if isinstance(n, ast.Assign | ast.AnnAssign) and n.value]
    names = [name for node in simple for name in bound_names(node)]
    tuples = [found for node in simple for found in ast.walk(node) if isinstance(found, ast.Tuple)]
    prose = [n for n in nodes if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    whole = len(simple) + len(prose) == len(nodes)
    return whole and not tuples and names == list(values)


def foreign_parameters(source: str) -> dict[str, Parameter]:
    """What a parameters cell of another language seems to declare; its defaults are quoted.

    >>> foreign_parameters("lr <- 0.1  # step")["lr"]
    Parameter(name='lr', type='', default='0.1', help='step', bound=None, computed=True, ...)
    """
    found = filter(None, (_FOREIGN.fullmatch(line.strip()) for line in source.splitlines()))
    return {
        name: Parameter(name, "", text, help or "", computed=True)
        for name, text, help in (match.groups() for match in found)
    }


def type_name(annotation: str) -> str:
    """An annotation as the built-in types write it.

    >>> type_name("typing.Optional[List[int]]"), type_name("None | float")
    ('list[int] | None', 'float | None')
    """
    name = re.sub(r"\b(?:typing|t)\.", "", annotation)
    name = re.sub(r"\b(List|Dict|Tuple)\b", lambda found: found[0].lower(), name)
    inner = re.fullmatch(r"Optional\[(.+)\]|None \| ([^|]+)|Union\[([^,]+), None\]", name)
    return f"{next(filter(None, inner.groups()))} | None" if inner else name


def _declared(source: str) -> Iterator[Declared]:
    """Every assignment of a cell, in order; a type once given stays."""
    types: dict[str, str] = {}
    source, nodes = parsed(source)
    lines = re.split(r"\r\n?|\n", source)
    for node in nodes:
        line = lines[(node.end_lineno or 1) - 1].encode()[node.end_col_offset :].decode().strip()
        comment = line.lstrip("#").strip() if line.startswith("#") else ""
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            written = node.annotation
            text = written.value if isinstance(written, ast.Constant) else ast.unparse(written)
            types[node.target.id] = type_name(str(text))
        simple = isinstance(node, ast.AnnAssign) or (
            isinstance(node, ast.Assign) and all(isinstance(t, ast.Name) for t in node.targets)
        )
        value = (getattr(node, "value", None) if simple else None) or ast.Constant(...)
        for name in bound_names(node):
            yield Declared(name, types.get(name, ""), value, comment)


def _parameter(one: Declared, axis: bool) -> Parameter:
    match = re.fullmatch(r"(.*?)\s*\[\s*([<>=].*?)\s*\]", one.comment)
    checked = one.type.removesuffix(" | None") in TYPES
    help, bound = match.groups() if match and checked else (one.comment, None)
    if one.name == "n_seeds" and checked:
        bound = bound or ">= 1"
    code = ast.unparse(one.value)
    return _with_default(
        Parameter(one.name, one.type, code, help, bound, computed=True, axis=axis), one.value
    )


def _with_default(parameter: Parameter, code: ast.expr) -> Parameter:
    """The parameter with the value of an expression as its default, where that is a literal."""
    try:
        value = plain(literal(code))
    except (ValueError, RecursionError):
        return parameter
    if value is None and parameter.type in TYPES:  # as type checkers once took it
        parameter = replace(parameter, type=f"{parameter.type} | None")
    known = replace(parameter, computed=False)
    return replace(known, default=coerce(known, value))
