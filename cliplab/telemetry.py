"""What leaves a history: numbers, files, other tools' logs, replays, and a live figure."""

from __future__ import annotations

import csv
import io
import math
import pickle
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from cliplab.checks import check_positive
from cliplab.history import History
from cliplab.report import ClipReport
from cliplab.thresholds import Context, Threshold, as_policy
from cliplab.thresholds.response import _factor

FORMAT = "cliplab history 1"
FLAGS = ("clipped", "skipped")
WORDS = {"True": 1.0, "False": 0.0, "": math.nan}  # what pandas writes


class Writer(Protocol):
    """What ``torch.utils.tensorboard.SummaryWriter`` and its likes can do."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Log a number."""


def summarise(history: History) -> dict[str, Any]:
    """Return the numbers of ``History.summary``."""
    norms = history.total.cpu()
    finite = norms[norms.isfinite()].double()
    p50, p90, p99 = quantiles(finite, (0.5, 0.9, 0.99))
    skipped, nonfinite = history.skipped.cpu(), history.nonfinite.cpu()
    summary: dict[str, Any] = {
        "steps": len(history),
        "first_step": history.first_step,
        "clip_fraction": _mean(history.clipped),
        "skipped": int(_any_part(skipped).sum()),
        "nonfinite": int(_any_part(nonfinite).sum()),
        "norm_median": p50,
        "norm_p90": p90,
        "norm_p99": p99,
        "norm_max": float(finite.max()) if len(finite) else math.nan,
        "threshold_median": quantiles(history.threshold.cpu().flatten().double(), (0.5,))[0],
        "factor_mean": _mean(history.factor),
        "lr_mean": _mean(history.lr),
        "effective_lr_mean": _mean(history.effective_lr),
    }
    if not history.scalar and len(history):
        shares = history.clip_fraction.tolist()
        summary["clip_fraction_by_part"] = dict(zip(history.part_names, shares, strict=True))
    return summary


def quantiles(values: Tensor, orders: Sequence[float]) -> list[float]:
    """Return quantiles of the values that are not NaN, of any number of values (the lower one)."""
    ordered = values[~values.isnan()].sort().values
    if not len(ordered):
        return [math.nan] * len(orders)
    return [float(ordered[int(order * (len(ordered) - 1))]) for order in orders]


def _mean(values: Tensor) -> float:
    return float(values.double().nanmean()) if values.numel() else math.nan


def _any_part(flags: Tensor) -> Tensor:
    return flags if flags.ndim == 1 else flags.any(dim=1)


def tidy(history: History) -> dict[str, Tensor | list[str]]:
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


def write_csv(history: History, path: str | Path) -> None:
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


def write_scalars(history: History, writer: Writer, tag: str) -> None:
    """Log every column under ``tag/column``, with parts under ``tag/column/label``."""
    names = [""] if history.scalar else [f"/{name}" for name in history.part_names]
    for column in (*ClipReport.fields, "effective_lr"):
        rows = getattr(history, column).cpu().reshape(len(history), len(names)).tolist()
        for step, row in enumerate(rows, history.first_step):
            for name, value in zip(names, row, strict=True):
                writer.add_scalar(f"{tag}/{column}{name}", float(value), step)


def save(history: History, path: str | Path) -> None:
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


def load(path: str | Path) -> History:
    """Read what ``save`` or ``write_csv`` wrote."""
    if Path(path).suffix == ".csv":
        return _read_csv(Path(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a saved history: {error}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a saved history: expected a file of History.save")
    history = History(state["labels"], scalar=state["scalar"], max_bytes=state["max_bytes"])
    return _fill(history, state["rows"], state["lr"].tolist(), state["first_step"])


def _fill(history: History, rows: Tensor, lrs: Sequence[float], first_step: int) -> History:
    history.first_step = first_step
    for row, lr in zip(rows, lrs, strict=True):
        history.append(row, lr)
    return history


def _read_csv(path: Path) -> History:
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
    factor = column("factor", _factor(sizes, limits))
    after, clipped = column("norm_after", sizes * factor), column("clipped", sizes > limits)
    rows = torch.stack([sizes, after, limits, factor, clipped, column("skipped", 0)], dim=1)
    labels = [line["label"] for line in lines[:parts]] if "label" in lines[0] else []
    history = History(labels, scalar=parts == 1)
    return _fill(history, rows, column("lr", math.nan)[:, 0].tolist(), int(column("step", 0)[0, 0]))


def _number(path: Path, line: int, name: str, text: str | None) -> float:
    try:
        return WORDS[text] if text in WORDS else float(text or "")
    except ValueError:
        raise ValueError(f"{path}, line {line}: {name} is {text!r}, expected a number") from None


def replay(history: History, policy: float | Threshold) -> History:
    """Show a copy of ``policy`` the recorded sizes, step by step."""
    policy = as_policy(policy)
    rows, lrs = history.rows.cpu(), history.lr.tolist()
    policy.init(rows.shape[-1])
    again = History(history.labels, scalar=history.scalar, max_bytes=history._max_bytes)
    again.first_step = history.first_step
    for step, (row, lr) in enumerate(zip(rows, lrs, strict=True), history.first_step):
        sizes, had_no_gradient = row[0], row[2].isnan()
        finite = sizes.isfinite()
        known = None if math.isnan(lr) else lr
        total = sizes.where(finite, 0.0).norm()
        context = Context(finite & ~had_no_gradient, step, known, None, partial(torch.clone, total))
        limits = policy(sizes, context).to(sizes)
        factor, over = _factor(sizes, limits), sizes > limits
        skipped = (~finite).any().expand_as(over)
        again.append(torch.stack([sizes, sizes * factor, limits, factor, over, skipped]), known)
    return again


class Live:
    """A figure that follows a history; ``close()`` it, or use it as a context manager."""

    def __init__(self, history: History, every: float) -> None:
        self._every = check_positive("every", every, zero=True)
        self._history, self._next = history, 0.0
        self._show = _find_display()
        if history._live is not None:
            history._live.close()
        if self._show is not None:
            history._live = self

    @property
    def is_open(self) -> bool:
        """Whether new steps are still drawn."""
        return self._history._live is self

    def update(self) -> None:
        """Draw again if it is time; a figure that fails is closed and never ends a training."""
        begun = time.monotonic()
        if begun < self._next:
            return
        try:
            self._draw()
        except Exception as error:
            self._history._live = None
            warnings.warn(f"watch() stopped: {error!r}", stacklevel=2)
        now = time.monotonic()
        self._next = now + max(self._every, 9 * (now - begun))

    def close(self) -> None:
        """Draw a last time and stop."""
        if self.is_open:
            self._next = 0.0
            self.update()
            self._history._live = None

    def _draw(self) -> None:
        from matplotlib.figure import Figure

        from cliplab import plots

        if self._show is None or not len(self._history):
            return
        figure = Figure(figsize=plots.WIDE, layout="constrained")
        plots.overview(self._history, figure=figure)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=80)
        self._show(image.getvalue())

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _find_display() -> Callable[[bytes], object] | None:
    """Return what shows a PNG in this notebook, always in the same place; None without one."""
    try:
        from IPython import get_ipython
        from IPython.display import HTML, Image, display
    except ImportError:
        return None
    if not hasattr(get_ipython(), "kernel"):
        return None
    from cliplab import plots  # noqa: F401  (says now, not in the training loop, what is missing)

    handle = display(HTML(""), display_id=True)
    return lambda png: handle.update(Image(data=png))
