"""A notebook's runs as a table: the parameters that vary, and what was measured at each point."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from cliplab.lab.notebook.presets import SEEDS
from cliplab.lab.report.tables import is_number, number

if TYPE_CHECKING:
    from cliplab.lab.runs.record import RunRecord

LONGEST = 80  # characters of a value
Line = dict[str, Any]


def varied(records: Sequence[RunRecord]) -> list[str]:
    """The parameters that are not the same in all runs."""
    names = dict.fromkeys(name for record in records for name in record.params)
    return [n for n in names if len({_canonical(r.params.get(n)) for r in records}) > 1]


def has_settings(records: Sequence[RunRecord]) -> bool:
    """Whether the runs differ in more than their seeds."""
    return bool(set(varied(records)) - set(SEEDS))


def grid(
    records: Sequence[RunRecord], hrefs: Sequence[str], metric: str | None
) -> tuple[list[str], list[Line]]:
    """Columns and lines, one for each run, or each arm of a run that has rows.

    Empty where the runs differ in their seeds alone and recorded no values by name.
    """
    parameters = varied(records)
    if not has_settings(records) and not any(record.values for record in records):
        return [], []
    lines: list[Line] = [
        {"href": href, "cells": settings | arm | record.values}
        for record, href in zip(records, hrefs, strict=True)
        for settings in [{name: exact(record.params.get(name)) for name in parameters}]
        for arm in _arms(record.rows, metric)
    ]
    columns = list(dict.fromkeys(column for line in lines for column in line["cells"]))
    for line in lines:
        line["cells"] = [shown(line["cells"].get(column)) for column in columns]
    return columns, lines


def _arms(rows: Sequence[dict[str, Any]], metric: str | None) -> list[Line]:
    """Each arm with the mean of the metric; one line of nothing where there are no rows."""
    arms: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        arms[row["arm"]].append(row.get(metric or ""))
    return [
        {"arm": arm, "n": len(values), **({metric: _mean(values)} if metric else {})}
        for arm, values in arms.items()
    ] or [{}]


def _mean(values: Sequence[Any]) -> float | None:
    numbers = [value for value in values if is_number(value)]
    return fmean(numbers) if numbers else None


def shown(value: Any) -> str:
    """Any JSON value in a cell of a table."""
    if value is None or isinstance(value, bool | int | float):
        return number(value)
    return exact(value)


def exact(value: Any) -> str:
    """Any JSON value with all its digits, if it is not too long."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
