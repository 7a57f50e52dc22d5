"""Whether two runs recorded the same: bit for bit, and if not, where they first differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

Payload = Mapping[str, Any]  # rows, curves, choices: what a notebook gave to `record`


def columns(payload: Payload) -> set[str]:
    """Names of what was measured: columns of the rows, and names of the curves."""
    rows = {name for row in payload["rows"] for name in row}
    return rows | {f"curve {curve['name']}" for curve in payload["curves"]}


def first_difference(before: Payload, after: Payload, without: Collection[str] = ()) -> str | None:
    """The first value that is not the same, with its arm, seed and column; None if all are.

    Columns (and curves) that are only in ``after``, or named in ``without``, are not looked at.
    The same means the same type and the same bits, NaN and the sign of zero included.
    """
    known = columns(before) - set(without)
    old, new = (_values(payload, known) for payload in (before, after))
    for (name, x), (other, y) in zip(old, new, strict=False):
        if name != other:
            return f"{name} was recorded, now {other}"
        if not _same(x, y):
            return f"{name}: {x!r} was recorded, now {y!r}"
    counts = [len(list(_values(payload, known))) for payload in (before, after)]
    return None if counts[0] == counts[1] else f"{counts[0]} values were recorded, now {counts[1]}"


def _values(payload: Payload, known: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Every value with its name, in the order in which it was recorded."""
    for row in payload["rows"]:
        where = f"arm {row['arm']!r}, seed {row['seed']}"
        for column in sorted(row.keys() & known):
            yield f"{where}, {column}", row[column]
    for curve in payload["curves"]:
        if f"curve {curve['name']}" in known:
            where = f"arm {curve['arm']!r}, seed {curve['seed']}, curve {curve['name']}"
            yield from _flat(where, {key: curve[key] for key in ("x", "y")})
    yield from _flat("choices", payload["choices"])


def _flat(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _flat(f"{where} {key}", value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, item in enumerate(value):
            yield from _flat(f"{where}[{i}]", item)
    else:
        yield where, value


def _same(x: Any, y: Any) -> bool:
    return type(x) is type(y) and repr(x) == repr(y)
