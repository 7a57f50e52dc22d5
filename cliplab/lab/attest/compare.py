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

    What only ``after`` has of a row's columns (or of the curves' names), and what is named in
    ``without``, is not looked at. The same means the same type and the same bits, NaN and the sign
    of zero included.
    """
    known = columns(before) - set(without)
    theirs = [_keys(row, known) for row in before["rows"]]
    old = _values(before, theirs, known)
    new = _values(after, [own & _keys(row, known) for own, row in _paired(theirs, after)], known)
    for (name, x), (other, y) in zip(old, new, strict=False):
        if name != other:
            return f"{name} was recorded, now {other}"
        if not same(x, y):
            return f"{name}: {x!r} was recorded, now {y!r}"
    return None if len(old) == len(new) else f"{len(old)} values were recorded, now {len(new)}"


def _keys(row: Mapping[str, Any], known: Collection[str]) -> set[str]:
    return set(row) & set(known)


def _paired(theirs: Sequence[set[str]], after: Payload) -> Iterator[tuple[set[str], Any]]:
    """Each row of ``after`` with the columns of the row that was in its place."""
    missing = [set[str]() for _ in after["rows"][len(theirs) :]]
    return zip([*theirs[: len(after["rows"])], *missing], after["rows"], strict=True)


def _values(
    payload: Payload, columns_of: Sequence[set[str]], known: Collection[str]
) -> list[tuple[str, Any]]:
    """Every value with its name, in the order in which it was recorded."""
    found: list[tuple[str, Any]] = []
    for row, own in zip(payload["rows"], columns_of, strict=True):
        where = f"arm {row['arm']!r}, seed {row['seed']}"
        found += [
            (where, "a row"),
            *((f"{where}, {column}", row[column]) for column in sorted(own)),
        ]
    for curve in payload["curves"]:
        if f"curve {curve['name']}" in known:
            where = f"arm {curve['arm']!r}, seed {curve['seed']}, curve {curve['name']}"
            found += _flat(where, {key: curve[key] for key in ("x", "y")})
    return [*found, *_flat("choices", payload["choices"])]


def _flat(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _flat(f"{where} {key}", value[key])
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for i, item in enumerate(value):
            yield from _flat(f"{where}[{i}]", item)
    else:
        yield where, value


def same(x: Any, y: Any) -> bool:
    """Type and bits, NaN and the sign of zero included."""
    return type(x) is type(y) and repr(x) == repr(y)
