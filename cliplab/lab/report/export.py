"""Everything that was recorded as one table: parameters beside recorded values.

A row for each recorded row, or one for a run that recorded none. Where a name means several things,
the recorded column keeps it, and the others are called ``value.NAME`` and ``parameter.NAME``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.record import RunRecord

RUN = ("notebook", "preset", "key")  # an export begins with these
_MARK = b"cliplab"


@dataclass(frozen=True)
class Table:
    """Rows of JSON values, each of all columns."""

    columns: list[str]
    rows: list[list[Any]]


def table_of(records: Sequence[RunRecord]) -> Table:
    """The table of all records; a name that a run does not have is None there."""
    titles = _titles(records)
    rows = []
    for record in records:
        run = {("run", n): v for n, v in zip(RUN, _run(record), strict=True)}
        run |= {("parameter", name): value for name, value in record.params.items()}
        run |= {("value", name): value for name, value in record.values.items()}
        for recorded in record.rows or [{}]:
            found = run | {("row", name): value for name, value in recorded.items()}
            rows.append([found.get(column) for column in titles])
    return Table(list(titles.values()), rows)


def _run(record: RunRecord) -> tuple[str, str, str]:
    return record.notebook, record.preset, record.key[:16]


def _titles(records: Sequence[RunRecord]) -> dict[tuple[str, str], str]:
    """What is called how, in the order of the columns: run, parameters, arm and seed, the rest."""
    leading = ("arm", "seed") if any(record.rows for record in records) else ()
    names = {
        "row": dict.fromkeys([*leading, *(n for r in records for row in r.rows for n in row)]),
        "value": dict.fromkeys(name for record in records for name in record.values),
        "parameter": dict.fromkeys(name for record in records for name in record.params),
    }
    titles = {("run", name): name for name in RUN}
    for kind, own in names.items():
        taken = set(titles.values())
        for name in own:
            title = name
            while title in taken:
                title = f"{kind}.{title}"
            taken.add(title)
            titles[kind, name] = title
    order = ("run", "parameter", "row", "value")
    return {column: titles[column] for kind in order for column in titles if column[0] == kind}


def as_csv(table: Table) -> bytes:
    """CSV in UTF-8: None is empty, numbers have all their digits, nested values are JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_cell(value) for value in row] for row in table.rows)
    return text.getvalue().encode(errors="backslashreplace")


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def as_json(table: Table) -> bytes:
    """A JSON list of objects; NaN and infinity, which JSON does not have, are null."""
    rows = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    lines = (json.dumps(finite(row), allow_nan=False) for row in rows)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def finite(value: Any) -> Any:
    """A JSON value with None in place of NaN and infinity."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_parquet(table: Table) -> bytes:
    """Parquet: every column has its type; one of mixed or nested values is JSON text."""
    import pyarrow
    from pyarrow import parquet

    columns = [list(column) for column in zip(*table.rows, strict=True)]
    arrays = dict(zip(table.columns, map(_array, columns), strict=True))
    made = pyarrow.table(arrays).replace_schema_metadata({_MARK: b"export"})
    buffer = io.BytesIO()
    parquet.write_table(made, buffer)
    return buffer.getvalue()


def _array(values: Sequence[Any]) -> Any:
    import pyarrow

    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {int, float} or kinds in ({bool}, {str}, {list}):
        try:
            array = pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError):  # no such type
            pass
        else:
            if kinds != {list} or array.to_pylist() == values:
                return array
    return pyarrow.array([None if v is None else _cell(v) for v in values], pyarrow.string())


FORMATS: dict[str, Callable[[Table], bytes]] = {
    ".csv": as_csv,
    ".json": as_json,
    ".parquet": as_parquet,
}


def write_export(table: Table, path: Path, *, force: bool = False) -> None:
    """Write a table in the format that the file's name says.

    ``ValueError``: no such format, or (without ``force``) a file that is no export is in the way.
    """
    make = FORMATS.get(path.suffix.lower())
    if make is None:
        raise ValueError(f"-o {path}: expected a name that ends in {', '.join(FORMATS)}")
    if path.is_dir() or (path.exists() and not force and not _is_export(path)):
        what = "a folder" if path.is_dir() else "no export of cliplab's; --force overwrites it"
        raise ValueError(f"-o {path} is there, and is {what}")
    write_atomic(path, make(table))


def _is_export(path: Path) -> bool:
    """Whether a file begins, or for parquet ends, as ours do."""
    content = path.read_bytes()
    if path.suffix.lower() == ".parquet":
        return content.startswith(b"PAR1") and _MARK in content[-(2**16) :]
    begins = {".csv": ",".join(RUN), ".json": '[\n{"notebook": "'}[path.suffix.lower()]
    return content.startswith(begins.encode())
