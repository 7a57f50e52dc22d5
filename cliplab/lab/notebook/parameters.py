"""The typed parameters of a notebook: read from its tagged cell, checked before anything runs."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from cliplab.lab.notebook.cells import is_parameters_cell, load_cells

SCALARS = ("int", "float", "bool", "str")
TYPES = (*SCALARS, "list[int]", "list[float]", "list[str]")
_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Text(str):
    """A value typed on a command line; :func:`coerce` reads it by the parameter's type."""


@dataclass(frozen=True)
class Parameter:
    """One line ``name: type = literal  # help (unit) [bound]`` of the parameters cell."""

    name: str
    type: str
    default: Any = None
    help: str = ""
    bound: str | None = None

    def refuse(self, value: object, why: str) -> ValueError:
        """The error that names this parameter and the offending value."""
        return ValueError(f"parameter {self.name}: {value!r} {why}")


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The declared parameters by name, in order; ``ValueError`` names the line that is wrong."""
    tagged = [cell["source"] for cell in load_cells(notebook) if is_parameters_cell(cell)]
    if len(tagged) != 1:
        raise ValueError(f'{notebook}: expected one cell tagged "parameters", found {len(tagged)}')
    try:
        parameters = parse_parameters(tagged[0])
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{notebook}: parameters cell: {error}") from None
    for name in ("first_seed", "n_seeds"):
        if name not in parameters or parameters[name].type != "int":
            raise ValueError(f"{notebook}: the parameters cell must declare {name}: int")
    return parameters


def parse_parameters(source: str) -> dict[str, Parameter]:
    """The parameters declared by the source of a cell.

    >>> parse_parameters("lr: float = 0.1  # step (per update) [> 0]")["lr"]
    Parameter(name='lr', type='float', default=0.1, help='step (per update)', bound='> 0')
    """
    parameters: dict[str, Parameter] = {}
    for node in ast.parse(source).body:
        line = source.split("\n")[node.lineno - 1]
        if not (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.value is not None
            and node.lineno == node.end_lineno
        ):
            raise ValueError(f"{line!r}: expected `name: type = literal  # help` on one line")
        comment = line.encode()[node.end_col_offset :].decode().strip().lstrip("#").strip()
        match = re.fullmatch(r"(.*?)\s*\[\s*([<>=].*?)\s*\]", comment)
        help, bound = match.groups() if match else (comment, None)
        name, kind = node.target.id, ast.unparse(node.annotation)
        if kind not in TYPES:
            raise ValueError(f"{line!r}: type {kind} is not one of {', '.join(TYPES)}")
        if name in parameters:
            raise ValueError(f"{line!r}: {name} is declared twice")
        if name == "n_seeds":
            bound = bound or ">= 1"
        parameter = Parameter(name, kind, None, help, bound)
        try:
            default = ast.literal_eval(node.value)
        except (TypeError, ValueError):
            raise ValueError(f"{line!r}: the default must be a literal") from None
        parameters[name] = Parameter(name, kind, coerce(parameter, default), help, bound)
    return parameters


def coerce(parameter: Parameter, value: object) -> Any:
    """``value`` as the parameter's type, or a ``ValueError`` that says what was expected.

    Strict: no number from a string (but :class:`Text` is read), no int from 1.5, never NaN or inf,
    no empty list and no item twice; an int is taken for a float.

    >>> coerce(Parameter("lr", "float", bound="> 0"), Text("1e-3"))
    0.001
    >>> coerce(Parameter("sizes", "list[int]"), Text("[1, 5]"))
    [1, 5]
    """
    if isinstance(value, Text):
        value = _from_text(parameter, value)
    if parameter.type in SCALARS:
        return _scalar(parameter, parameter.type, value)
    if not isinstance(value, list) or not value:
        raise parameter.refuse(value, f"is not a non-empty {parameter.type}")
    items = [_scalar(parameter, parameter.type[5:-1], item) for item in value]
    if len(set(items)) < len(items):
        raise parameter.refuse(value, "names a value twice")
    return items


def _from_text(parameter: Parameter, text: Text) -> object:
    if parameter.type in SCALARS:
        return _scalar_from_text(parameter.type, text)
    inner = re.sub(r"^\s*\[(.*)\]\s*$", r"\1", text)
    kind = parameter.type[5:-1]
    items = [Text(item.strip().strip("\"'")) for item in inner.split(",")]
    return [_scalar_from_text(kind, item) for item in items] if inner.strip() else []


def _scalar_from_text(kind: str, text: Text) -> object:
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"int": int, "float": float, "str": str}[kind](text)
    except (KeyError, ValueError):
        return str(text)  # refused by _scalar, which knows the parameter's name


def _scalar(parameter: Parameter, kind: str, value: object) -> Any:
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected: Any = {"int": int, "float": float, "bool": bool, "str": str}[kind]
    if not isinstance(value, expected) or (kind == "int" and isinstance(value, bool)):
        why = f"is not of type {kind}"
        if kind == "float" and isinstance(value, str) and _is_number(value):
            why += f": it is text; write {float(value)!r} without quotes (YAML wants 1.0e-3)"
        raise parameter.refuse(value, why)
    if isinstance(value, float) and not math.isfinite(value):
        raise parameter.refuse(value, "is not a finite number")
    if parameter.bound is not None and not _within(parameter, value):
        raise parameter.refuse(value, f"violates its bound [{parameter.bound}]")
    return value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _within(parameter: Parameter, value: Any) -> bool:
    match = re.fullmatch(r"([<>]=?)\s*(\S+)", parameter.bound or "")
    if match is None or not _is_number(match[2]) or isinstance(value, str | bool):
        raise ValueError(
            f"parameter {parameter.name}: bound [{parameter.bound}] is not like [> 0] or [>= 1] "
            f"on a number"
        )
    return bool(_COMPARE[match[1]](value, float(match[2])))


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Check a notebook's parameters against their annotations: ``check_parameters(globals())``.

    ``ValueError`` names a value of the wrong type or out of bounds, an empty list, or a name
    injected by papermill (which only warns) that the notebook does not declare.
    """
    annotations = dict(namespace.get("__annotations__", {}))
    cells = namespace.get("In", [])  # IPython's list of the cells run so far
    declared = {name: Parameter(name, _type_name(kind)) for name, kind in annotations.items()}
    for source in cells:
        with suppress(SyntaxError, ValueError):  # the one cell that reads as parameters has bounds
            declared |= parse_parameters(source)
    for name, parameter in declared.items():
        if parameter.type in TYPES and name in namespace:
            coerce(parameter, namespace[name])
    for source in cells:
        if source.startswith("# Parameters\n"):
            for node in ast.parse(source).body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    name = node.targets[0].id
                    if name not in annotations:
                        known = ", ".join(annotations)
                        raise ValueError(f"unknown parameter {name}; declared: {known}")


def _type_name(annotation: Any) -> str:
    if isinstance(annotation, str) or get_args(annotation):
        return str(annotation)
    return getattr(annotation, "__name__", "")
