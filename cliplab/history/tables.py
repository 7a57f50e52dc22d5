"""A history as a table: a row for every step and part, in memory and as CSV."""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from cliplab.history.columns import ClipReport
from cliplab.history.ring import Ring, SomeRing
from cliplab.history.store import LAST_STEP
from cliplab.thresholds import Step, respond

FLAGS = ("clipped", "skipped")
OF_STEPS = ("lr", "update_norm")  # always doubles
KNOWN = ("step", "part", "label", *OF_STEPS, *ClipReport.fields)  # other columns are not looked at

Value = TypeVar("Value")


def tidy(history: Ring) -> dict[str, Tensor | list[str]]:
    """Return columns with one entry per step and part, on the CPU."""
    steps, names = len(history), history.part_names
    numbers = torch.arange(steps, device="cpu") + history.first_step
    columns: dict[str, Tensor | list[str]] = {
        "step": numbers.repeat_interleave(len(names)),
        "part": torch.arange(len(names), device="cpu").repeat(steps),
    }
    if not history.scalar:
        columns["label"] = names * steps
    for name in (*ClipReport.fields, "effective_lr"):
        columns[name] = getattr(history, name).cpu().flatten()
    columns["lr"] = history.lr.repeat_interleave(len(names))
    if history.measures_updates:
        columns["update_norm"] = history.update_norm.repeat_interleave(len(names))
    return columns


def write_csv(history: Ring, path: str | Path) -> None:
    """Write the tidy columns, every number with all its digits; flags as 0 and 1."""
    columns = tidy(history)
    values = [_cells(name, c) if isinstance(c, Tensor) else c for name, c in columns.items()]
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)  # its line ends tell it which characters of a label to quote
        rows.writerow(columns)
        rows.writerows(zip(*values, strict=True))


def _cells(name: str, column: Tensor) -> list[Any]:
    if name in FLAGS:
        return column.int().tolist()
    if column.dtype is torch.float64 and name not in OF_STEPS:  # 17 digits: no fp32 is printed so
        return [f"{number:.17g}" for number in column.tolist()]
    return column.tolist()


class Table:
    """The known columns of a CSV, and the line of the file that every row ends on.

    ``ValueError`` for what is no table, has rows of another length than its head, or steps that
    do not list the same parts in the same order.
    """

    def __init__(self, text: str) -> None:
        reader = csv.reader(io.StringIO(text, newline=""))
        try:
            rows = [(reader.line_num, row) for row in reader if row]
        except csv.Error as error:
            raise ValueError(f"not a table: {error}") from None
        (_, head), *body = rows or [(0, [])]
        if "norm_before" not in head:
            raise ValueError("expected a table with a column norm_before")
        for line, row in body:
            if len(row) != len(head):
                raise ValueError(f"line {line}: expected {len(head)} columns, got {len(row)}")
        self.lines = [line for line, _ in body]
        self.columns: dict[str, list[str]] = {}
        for name, *cells in zip(head, *(row for _, row in body), strict=True):
            if name in self.columns:
                raise ValueError(f"expected one column {name}, got several")
            if name in KNOWN:
                self.columns[name] = cells
        self.parts = list(dict.fromkeys(self.columns.get("part", [""])))
        self._check_order("part", self.parts)

    def labels(self) -> list[str]:
        """The names of the parts: their labels, or what the column ``part`` has beside numbers."""
        if "label" not in self.columns:
            numbers = [str(i) for i in range(len(self.parts))]
            return [] if self.parts in ([""], numbers) else self.parts
        labels = self.columns["label"][: len(self.parts)]
        self._check_order("label", labels)
        return labels

    def _check_order(self, name: str, first: list[str]) -> None:
        cells = self.columns.get(name, [])
        if cells != first * (len(cells) // max(len(first), 1)):
            raise ValueError(f"expected every step to list the same {name}s in the same order")

    def read(self, name: str, convert: Callable[[str], Value]) -> list[Value]:
        """A column; ``convert`` raises ``ValueError`` with what it expected."""
        values = []
        for line, text in zip(self.lines, self.columns[name], strict=True):
            try:
                values.append(convert(text))
            except ValueError as error:
                found = f"{text:.40}"  # a cell may hold a file
                raise ValueError(f"line {line}: {name} is {found!r}, expected {error}") from None
        return values

    def of_steps(self, name: str, convert: Callable[[str], Value]) -> list[Value]:
        """A column that says the same of all parts of a step: ``[steps]``."""
        values, parts = self.read(name, convert), len(self.parts)
        for i, value in enumerate(values):
            first = values[i - i % parts]
            if value != first and (value == value or first == first):  # NaN is like NaN
                line = self.lines[i]
                raise ValueError(f"line {line}: {name} is {value}, in that step also {first}")
        return values[::parts]


def read_csv(text: str, kind: type[SomeRing]) -> SomeRing:
    """Read a table of ``write_csv``, of pandas, or of norms alone; ``ValueError`` for others.

    Numbers are fp32 if all of them are fp32 numbers, or are printed as such, else fp64.
    """
    table = Table(text)
    labels, parts = table.labels(), len(table.parts)
    history = kind(labels, scalar=parts <= 1 and not labels and "label" not in table.columns)
    if table.lines:
        lrs = table.of_steps("lr", _number) if "lr" in table.columns else []
        updates = table.of_steps("update_norm", _size) if "update_norm" in table.columns else []
        history.first_step = _first_step(table)
        rows = _rows(table)
        lrs = lrs or [math.nan] * len(rows)
        history.extend(rows, array("d", lrs), array("d", updates))
    return history


def _rows(table: Table) -> Tensor:
    """The recorded columns ``[steps, 6, n_parts]``; what the table does not say was not done."""
    converters = {"norm_before": _size, "clipped": _flag, "skipped": _flag}
    given = {}
    for name in ClipReport.fields:
        if name in table.columns:
            numbers = table.read(name, converters.get(name, _number))
            column = torch.tensor(numbers, dtype=torch.float64, device="cpu")
            given[name] = column.reshape(-1, len(table.parts))
    if all(_is_single(table.columns[name], column) for name, column in given.items()):
        given = {name: column.float() for name, column in given.items()}
    sizes = given["norm_before"]
    limits = given.get("threshold", torch.full_like(sizes, math.inf))
    step = respond(sizes, limits, sizes.isfinite())
    factor = given.get("factor", step.factor)
    after = given.get("norm_after", sizes * factor)
    clipped, skipped = given.get("clipped", step.clipped), given.get("skipped", step.skipped)
    return torch.stack(Step(sizes, after, limits, factor, clipped, skipped), dim=1)


def _is_single(texts: list[str], column: Tensor) -> bool:
    """Whether all are fp32 numbers, exactly or in the 6 to 9 digits that tell them apart."""
    singles = column.float().flatten().tolist()
    return all(
        number == single
        or math.isnan(number)
        or (_digits(text) <= 9 and number in {float(f"{single:.{n}g}") for n in (6, 7, 8, 9)})
        for text, number, single in zip(texts, column.flatten().tolist(), singles, strict=True)
    )


def _digits(text: str) -> int:
    """How many digits a number is written with, zeros in front aside."""
    mantissa = text.lower().partition("e")[0]
    return len("".join(filter(str.isdigit, mantissa)).lstrip("0"))


def _first_step(table: Table) -> int:
    steps = table.of_steps("step", _step) if "step" in table.columns else [0]
    for i, step in enumerate(steps):
        if step != steps[0] + i:
            line = table.lines[i * len(table.parts)]
            raise ValueError(
                f"line {line}: step is {step}, expected {steps[0] + i}: one step after the other "
                "(without the column they count from 0)"
            )
    return steps[0]


def _number(text: str) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        raise ValueError("a number") from None


def _size(text: str) -> float:
    size = _number(text)
    if size < 0:
        raise ValueError("a number >= 0")
    return size


def _flag(text: str) -> float:
    flags = {"True": 1.0, "False": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}
    if text not in flags:
        raise ValueError("0 or 1")
    return flags[text]


def _step(text: str) -> int:
    try:
        step = int(text)
    except ValueError:
        number = _number(text)
        step = int(number) if number.is_integer() else -1
    if not 0 <= step <= LAST_STEP:
        raise ValueError("a whole number >= 0")
    return step
