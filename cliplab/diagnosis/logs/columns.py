"""The columns of a log: numbers by name, each with the row it stands in. Rows may lack any."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from cliplab.checks import counted

BLANK = ("", "null", "none", "-")  # texts of a cell that holds nothing
LONG_FORMAT = ("key", "metric", "tag", "name")  # names a metric where "value" is its number


class Unfinished(ValueError):
    """Nothing to diagnose yet: a log that is still written may come to it."""


class Series(NamedTuple):
    """One column: the rows where it has a number ``[n]``, ascending, and the numbers ``[n]``."""

    rows: Tensor
    values: Tensor


class Columns:
    """The numbers of a log by name, and what was odd about it (``notes``).

    >>> columns = Columns()
    >>> columns.add({"step": 1, "grad_norm": "NaN", "host": "a"})
    >>> columns.add({"step": 2, "train": {"loss": 0.5}, "grad_norm": None})
    >>> columns.names, columns.series("grad_norm").values
    (['step', 'grad_norm', 'train/loss'], tensor([nan], dtype=torch.float64))
    >>> columns.blanks
    {'grad_norm': 1}
    """

    def __init__(self) -> None:
        self.n_rows = 0
        self.notes: list[str] = []
        self.blanks: dict[str, int] = {}  # how often a column was named and held nothing
        self.texts: dict[str, tuple[int, str]] = {}  # where it first held no number: row, what
        self._rows: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}

    @property
    def names(self) -> list[str]:
        """The columns that hold any number, in the order of their first one."""
        return list(self._values)

    def add(self, row: Mapping[str, object]) -> None:
        """Take a row; of one in long format (``key``, ``value``, ``step``) the metric it names."""
        self._put(_widened(row) if "value" in row else row, "")
        self.n_rows += 1

    def _put(self, row: Mapping[str, object], prefix: str) -> None:
        for key, value in row.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping):
                self._put(value, f"{name}/")
                continue
            try:
                number = value if type(value) is float else _number(value)
            except ValueError:
                if name not in self.texts:
                    self.texts[name] = (self.n_rows, str(value))
                continue
            if number is None:
                self.blanks[name] = self.blanks.get(name, 0) + 1
                continue
            if name not in self._values:
                self._rows[name], self._values[name] = array("q"), array("d")
            self._rows[name].append(self.n_rows)
            self._values[name].append(number)

    def note_torn(self, torn: list[int], last: int, text: str, unit: str, without: str) -> None:
        """Note which lines were left out; the ``last`` of the text may not be whole yet."""
        if torn and torn[-1] == last and not text.endswith("\n"):
            torn = torn[:-1]
            self.notes.append("the last line is not whole yet: left out")
        if torn:
            what = f"{counted(len(torn), unit)} (the first: {unit} {torn[0]})"
            self.notes.append(f"{what} without {without}: left out")

    def series(self, name: str) -> Series:
        """A column; ``ValueError`` if a row of it holds something that is no number."""
        if name in self.texts:
            row, text = self.texts[name]
            raise ValueError(f"column {name}: {text[:40]!r} in row {row + 1} is no number")
        return Series(
            torch.frombuffer(self._rows[name], dtype=torch.int64),
            torch.frombuffer(self._values[name], dtype=torch.float64),
        )


def _widened(row: Mapping[str, object]) -> Mapping[str, object]:
    names = [row[key] for key in LONG_FORMAT if isinstance(row.get(key), str)]
    if not names:
        return row
    step = {"step": row["step"]} if "step" in row else {}
    return {str(names[0]): row["value"], **step}


def _number(value: object) -> float | None:
    """A number, None for an empty cell, ``ValueError`` for what is neither."""
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in BLANK:
            return None
        if "_" in text:  # float() would take 1_000
            raise ValueError
        return float(text)
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    raise ValueError
