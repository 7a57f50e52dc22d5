"""Logs in JSON: one object a line, a list of objects, or the Hugging Face Trainer's state."""

from __future__ import annotations

import io
import json
from typing import Any

from cliplab.diagnosis.logs.columns import Columns, Unfinished

LINES, DOCUMENT, TRAINER = "JSON lines", "JSON", "trainer_state.json"


def is_lines(text: str) -> bool:
    """Whether this is one object a line, and not one document."""
    first, *_ = text.lstrip().split("\n", 1)
    try:
        found = json.loads(first)
    except (ValueError, RecursionError):
        return text.lstrip().startswith("{") and "\n{" in text.lstrip()  # its first line is torn
    return isinstance(found, dict) and "log_history" not in found and not _is_table(found)


def read_lines(text: str) -> Columns:
    """Read one object a line. What a process that died left torn is left out, and noted."""
    columns = Columns()
    bad: list[int] = []
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            columns.add(row)
        else:
            bad.append(number)
    if len(bad) > columns.n_rows:
        raise Unfinished(f"line {bad[0]} is no JSON object, as are {len(bad)} lines of {number}")
    columns.note_torn(bad, number, text, "line", "a JSON object")
    return columns


def read_document(text: str) -> tuple[str, Columns]:
    """Read a document, and say of which kind it is."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Unfinished(f"not whole JSON: {error}") from None
    except RecursionError:
        raise ValueError("JSON nested too deep for a log") from None
    kind, rows = DOCUMENT, found
    if isinstance(found, dict) and "log_history" in found:
        kind, rows = TRAINER, found["log_history"]
    elif _is_table(found):
        length = max(map(len, found.values()))
        rows = [{k: v[i] for k, v in found.items() if i < len(v)} for i in range(length)]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            "expected a log in JSON: an object a line, a list of objects, columns as lists, or a "
            "trainer_state.json with log_history"
        )
    columns = Columns()
    for row in rows:
        columns.add(row)
    return kind, columns


def _is_table(found: Any) -> bool:
    """Whether this is an object of columns: lists by name."""
    return (
        isinstance(found, dict)
        and bool(found)
        and all(isinstance(column, list) for column in found.values())
    )
