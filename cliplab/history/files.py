"""What leaves a history: numbers, files, other tools' logs, replays, and a live figure."""

from __future__ import annotations

import csv
import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from cliplab.history.columns import ClipReport
from cliplab.history.ring import Ring
from cliplab.thresholds import Step, respond

FORMAT = "cliplab history 1"
FLAGS = ("clipped", "skipped")
WORDS = {"True": 1.0, "False": 0.0, "": math.nan}  # what pandas writes


SomeRing = TypeVar("SomeRing", bound=Ring)


class Writer(Protocol):
    """What ``torch.utils.tensorboard.SummaryWriter`` and its likes can do."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Log a number."""


def tidy(history: Ring) -> dict[str, Tensor | list[str]]:
    """Return columns with one entry per step and part, on the CPU."""
    steps, names = len(history), history.part_names
    columns: dict[str, Tensor | list[str]] = {
        "step": torch.arange(steps).repeat_interleave(len(names)) + history.first_step,
        "part": torch.arange(len(names)).repeat(steps),
    }
    if history.labels and not history.scalar:
        columns["label"] = names * steps
    for name in (*ClipReport.fields, "effective_lr"):
        columns[name] = getattr(history, name).cpu().flatten()
    columns["lr"] = history.lr.repeat_interleave(len(names))
    return columns


def write_csv(history: Ring, path: str | Path) -> None:
    """Write the tidy columns; flags as 0 and 1."""
    columns = tidy(history)
    values = [
        (c.int() if name in FLAGS else c).tolist() if isinstance(c, Tensor) else c
        for name, c in columns.items()
    ]
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows(zip(*values, strict=True))


def write_scalars(history: Ring, writer: Writer, tag: str) -> None:
    """Log every column under ``tag/column``, with parts under ``tag/column/label``."""
    names = [""] if history.scalar else [f"/{name}" for name in history.part_names]
    for column in (*ClipReport.fields, "effective_lr"):
        rows = getattr(history, column).cpu().reshape(len(history), len(names)).tolist()
        for step, row in enumerate(rows, history.first_step):
            for name, value in zip(names, row, strict=True):
                writer.add_scalar(f"{tag}/{column}{name}", float(value), step)


def save(history: Ring, path: str | Path) -> None:
    """Write tensors, numbers and text only."""
    state = {
        "format": FORMAT,
        "labels": history.labels,
        "scalar": history.scalar,
        "first_step": history.first_step,
        "max_bytes": history._max_bytes,
        "rows": history.rows.cpu(),
        "lr": history.lr,
    }
    torch.save(state, path)


def load(path: str | Path, kind: type[SomeRing]) -> SomeRing:
    """Read what ``save`` or ``write_csv`` wrote."""
    if Path(path).suffix == ".csv":
        return _read_csv(Path(path), kind)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a saved history: {error}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a saved history: expected a file of History.save")
    history = kind(state["labels"], scalar=state["scalar"], max_bytes=state["max_bytes"])
    return _fill(history, state["rows"], state["lr"].tolist(), state["first_step"])


def _fill(history: SomeRing, rows: Tensor, lrs: Sequence[float], first_step: int) -> SomeRing:
    history.first_step = first_step
    for row, lr in zip(rows, lrs, strict=True):
        history.append(row, lr)
    return history


def _read_csv(path: Path, kind: type[SomeRing]) -> SomeRing:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a table: {error}") from None
    if not lines or "norm_before" not in lines[0]:
        raise ValueError(f"{path}: expected a table with a column norm_before")
    parts = len({line.get("part", "") for line in lines})
    if [line.get("part", "") for line in lines] != [
        line.get("part", "") for line in lines[:parts]
    ] * (len(lines) // parts):
        raise ValueError(f"{path}: expected every step to list the same parts in the same order")

    def column(name: str, missing: Tensor | float) -> Tensor:
        if name not in lines[0]:
            return torch.as_tensor(missing).expand(len(lines) // parts, parts)
        numbers = [_number(path, i, name, line[name]) for i, line in enumerate(lines, 2)]
        return torch.tensor(numbers).reshape(-1, parts)

    sizes, limits = column("norm_before", 0), column("threshold", math.inf)
    step = respond(sizes, limits, sizes.isfinite())  # for what the table does not say
    factor, clipped = column("factor", step.factor), column("clipped", step.clipped)
    after = column("norm_after", sizes * factor)
    columns = Step(sizes, after, limits, factor, clipped, column("skipped", 0.0))
    labels = [line["label"] for line in lines[:parts]] if "label" in lines[0] else []
    history = kind(labels, scalar=parts == 1)
    rows = torch.stack(columns, dim=1)
    return _fill(history, rows, column("lr", math.nan)[:, 0].tolist(), int(column("step", 0)[0, 0]))


def _number(path: Path, line: int, name: str, text: str | None) -> float:
    try:
        return WORDS[text] if text in WORDS else float(text or "")
    except ValueError:
        raise ValueError(f"{path}, line {line}: {name} is {text!r}, expected a number") from None
