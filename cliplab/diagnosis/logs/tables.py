"""Logs as CSV: a line of names, then a line a row; separated by comma, semicolon or tab."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from cliplab.diagnosis.logs.columns import Columns, Unfinished

SEPARATORS = ",;\t"


def head_of(text: str) -> list[str]:
    """The names in the first line."""
    try:
        return next(_rows(text))
    except csv.Error as error:
        raise ValueError(f"not a table: {error}") from None


def read_table(text: str) -> Columns:
    """Read a table. Heads that a resumed run wrote again are skipped, torn lines noted."""
    columns = Columns()
    rows = _rows(text)
    torn: list[int] = []
    number = 1
    try:
        head = next(rows, [])
        named = [name for name in head if name]
        if len(set(named)) < len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise ValueError(f"expected one column {twice}, got several")
        for number, row in enumerate(rows, 2):
            if len(row) == len(head) and row != head:
                columns.add(dict(zip(head, row, strict=True)))
            elif row and row != head:
                torn.append(number)
    except csv.Error as error:
        raise ValueError(f"not a table: {error}") from None
    if len(torn) > columns.n_rows:
        raise Unfinished(f"row {torn[0]} has not the {len(head)} cells of the first line")
    columns.note_torn(torn, number, text, "row", f"{len(head)} cells")
    return columns


def _rows(text: str) -> Iterator[list[str]]:
    first, *_ = text.split("\n", 1)
    separator = max(SEPARATORS, key=first.count)
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
