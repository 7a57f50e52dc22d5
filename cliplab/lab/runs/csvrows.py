"""Tidy rows as CSV text that restores every value exactly."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from functools import cache
from typing import Any

Scalar = bool | int | float | str | None
_WORDS: dict[str, Scalar] = {"": None, "true": True, "false": False}


def write_rows(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as CSV in a stable order, every value such that `read_rows` restores it exactly.

    >>> write_rows([{"arm": "clip 1", "seed": 2000, "loss": 0.1, "ok": True}])
    'arm,seed,loss,ok\\nclip 1,2000,0.1,true\\n'
    """
    rows = sorted(rows, key=lambda row: (row["arm"], row["seed"]))
    columns = ["arm", "seed", *sorted({c for row in rows for c in row} - {"arm", "seed"})]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_encode(row.get(column)) for column in columns] for row in rows])
    return text.getvalue()


def read_rows(text: str) -> list[dict[str, Any]]:
    """The rows of `write_rows`; a column that a row did not have is None."""
    header, *lines = csv.reader(text.splitlines(keepends=True))
    decode = cache(_decode)  # most texts of a file are in it many times
    return [dict(zip(header, map(decode, line), strict=True)) for line in lines]


def _encode(value: Any) -> str:
    if isinstance(value, str):  # quoted only where it would read as something else
        plain = value.isprintable() and not value.startswith('"')
        return value if plain and _decode(value) == value else json.dumps(value)
    if not isinstance(value, Scalar):
        raise TypeError(f"{value!r} in a row, expected text, a number, a boolean or None")
    return next((w for w, v in _WORDS.items() if v is value), repr(value))


def _decode(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    if text.startswith('"'):
        return str(json.loads(text))
    for number in (float,) if "." in text else (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text
