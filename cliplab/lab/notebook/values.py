"""A parameter's values: read from text, checked against its type, as JSON has them."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time
from typing import Any

SCALARS = ("int", "float", "bool", "str")
TYPES = (*SCALARS, "list[int]", "list[float]", "list[str]")
_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_QUOTED = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""


class Text(str):
    """A value typed on a command line; :func:`coerce` reads it by the parameter's type."""


@dataclass(frozen=True)
class Parameter:
    """One line ``name: type = default  # help (unit) [bound]`` of the parameters cell.

    Only :data:`TYPES`, or one of them ``| None``, are checked; ``type`` is "" where there is none.
    ``computed``: the default is no literal but the code that ``default`` quotes. ``axis``: a list
    has to name something, and nothing twice.
    """

    name: str
    type: str = ""
    default: Any = None
    help: str = ""
    bound: str | None = None
    computed: bool = False
    axis: bool = True

    def refuse(self, value: object, why: str) -> ValueError:
        """The error that names this parameter and the offending value."""
        return ValueError(f"parameter {self.name}: {value!r} {why}")


def coerce(parameter: Parameter, value: object) -> Any:
    """``value`` as the parameter's type, or a ``ValueError`` that says what was expected.

    Strict where there is a type: no number from a string (but :class:`Text` is read), no int from
    1.5, never NaN or inf; an int is taken for a float. Else any JSON value; text as papermill reads
    it, or as a Python or JSON literal.

    >>> coerce(Parameter("lr", "float", bound="> 0"), Text("1e-3"))
    0.001
    >>> coerce(Parameter("sizes", "list[int]"), Text("[1, 5]"))
    [1, 5]
    >>> coerce(Parameter("layers"), Text("{'a': (1, None)}"))
    {'a': [1, None]}
    """
    kind = parameter.type.removesuffix(" | None")
    if kind not in TYPES:
        return _plain(parameter, _resolved(parameter, value) if isinstance(value, Text) else value)
    if isinstance(value, Text) and value == "None" and kind != parameter.type:
        value = None
    if value is None and kind != parameter.type:
        return None
    if isinstance(value, Text):
        value = _from_text(parameter, kind, value)
    if kind in SCALARS:
        return _scalar(parameter, kind, value)
    if not isinstance(value, list) or (parameter.axis and not value):
        raise parameter.refuse(value, f"is not a {'non-empty ' * parameter.axis}{kind}")
    items = [_scalar(parameter, kind[5:-1], item) for item in value]
    if parameter.axis and len(set(items)) < len(items):
        raise parameter.refuse(value, "names a value twice")
    return items


def split(text: str) -> list[str]:
    """The values between commas that stand in no quotes and no brackets.

    A quoted one is that text and nothing else; any other is yet to be read.

    >>> split("'a, b',c,[1,2]"), [type(part).__name__ for part in split("'1',1")]
    (['a, b', 'c', '[1,2]'], ['str', 'Text'])
    """
    pieces = re.findall(rf"{_QUOTED}|[^'\"]", text, re.DOTALL)
    if "".join(pieces) != text:
        raise ValueError(f"{text!r}: a quote has no other to close it")
    parts, depth = [""], 0
    for piece in pieces:
        depth += (piece in tuple("[{(")) - (piece in tuple("]})"))
        if piece == "," and not depth:
            parts.append("")
        else:
            parts[-1] += piece
    parts = [part.strip() for part in parts]
    if depth or not all(parts):
        raise ValueError(f"{text!r}: expected values separated by commas")
    return [_part(part) for part in parts]


def _part(part: str) -> str:
    if re.fullmatch(_QUOTED, part, re.DOTALL):
        return str(literal(part))
    if part[0] not in "[{(" and re.search("['\"]", part):
        raise ValueError(f"{part}: quotes go around a whole value")
    return Text(part)


def literal(code: str | ast.expr) -> Any:
    """The value of a Python literal; ``ValueError`` if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes like "\\d"
            return ast.literal_eval(code)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a literal: {error}") from None


def plain(value: object) -> Any:
    """``value`` as JSON has it: a tuple is a list, a date is text; ``ValueError`` if it is none."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, float):
        raise ValueError("is not a finite number")
    raise ValueError("is no JSON value: text, number, true, false, null, or lists and tables of it")


def same(one: object, other: object) -> bool:
    """Whether two JSON values are the same, of the same types: 1 is neither 1.0 nor True."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _plain(parameter: Parameter, value: object) -> Any:
    try:
        return plain(value)
    except RecursionError:
        raise ValueError(f"parameter {parameter.name}: nested too deeply") from None
    except ValueError as error:
        raise parameter.refuse(value, str(error)) from None


def _resolved(parameter: Parameter, text: Text) -> object:
    """Text as papermill reads it; a literal where no text is expected."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    default = None if parameter.computed else parameter.default
    bracket = text.lstrip().startswith(("[", "{")) and not isinstance(default, str)
    if not bracket and not isinstance(default, list | dict):
        return str(text)
    for read in (literal, json.loads):
        with suppress(ValueError, RecursionError):
            return read(text)
    raise parameter.refuse(str(text), "is neither a Python nor a JSON literal; -r takes it as text")


def _from_text(parameter: Parameter, kind: str, text: Text) -> object:
    if kind in SCALARS:
        return _scalar_from_text(kind, text)
    inner = re.sub(r"^\s*\[(.*)\]\s*$", r"\1", text, flags=re.DOTALL)
    try:
        parts = split(inner) if inner.strip() else []
    except ValueError as error:
        raise ValueError(f"parameter {parameter.name}: {error}") from None
    return [_scalar_from_text(kind[5:-1], p) if isinstance(p, Text) else p for p in parts]


def _scalar_from_text(kind: str, text: Text) -> object:
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"int": int, "float": float, "str": str}[kind](text)
    except (KeyError, ValueError):
        return str(text)  # refused by _scalar, which knows the parameter's name


def _scalar(parameter: Parameter, kind: str, value: object) -> Any:
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = _float(parameter, value)
    expected: Any = {"int": int, "float": float, "bool": bool, "str": str}[kind]
    if not isinstance(value, expected) or (kind == "int" and isinstance(value, bool)):
        why = f"is not of type {kind}"
        if kind == "float" and isinstance(value, str) and _is_number(value):
            why += f": it is text; write {float(value)!r} without quotes"
        raise parameter.refuse(value, why)
    if isinstance(value, float) and not math.isfinite(value):
        raise parameter.refuse(value, "is not a finite number")
    if parameter.bound is not None and not _within(parameter, value):
        raise parameter.refuse(value, f"violates its bound [{parameter.bound}]")
    return value


def _float(parameter: Parameter, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"parameter {parameter.name}: the number is too large") from None


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
