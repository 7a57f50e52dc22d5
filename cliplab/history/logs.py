"""What a history tells other tools' logs: the numbers of a step by name, and every step once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from cliplab.checks import check_flag, counted, described, tell
from cliplab.history.columns import ClipReport
from cliplab.history.ring import Ring

METHODS = ("log", "log_metrics", "track")  # what loggers have that log_to takes


class Writer(Protocol):
    """What ``torch.utils.tensorboard.SummaryWriter`` and its likes can do."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Log a number."""


Target = Callable[..., object] | Writer


class Log:
    """A history's way to a log: each call hands over the steps that are new since the last."""

    def __init__(self, history: Ring, target: Target, tag: str) -> None:
        if not isinstance(tag, str):
            raise ValueError(f"tag must be a string, got {described(tag)}")
        self._write = _as_function(target)
        self._history, self._target, self._tag = history, target, tag
        self._parts = False
        self._met = 0  # of the steps ever recorded: handed over, or forgotten before
        self._lost = 0  # of these: forgotten

    def goes(self, target: Target, tag: str) -> bool:
        """Whether it hands over to this, under this tag."""
        return bool(self._target == target) and self._tag == tag

    def with_parts(self, parts: bool) -> Log:
        """This log, from now on with the numbers of each part or without them."""
        self._parts = check_flag("parts", parts) and not self._history.scalar
        return self

    def __call__(self) -> int:
        """Hand over what is new, oldest step first; return how many steps that were.

        If the function raises, the step counts as not handed over, and begins the next call.
        """
        history = self._history
        self._pass_over(history.forgotten - self._met)
        first, done = self._met - history.forgotten, 0
        names = history.part_names if self._parts else []
        for rows, lrs, updates in history.pieces(first):
            numbers = zip(rows.double().cpu(), lrs.tolist(), updates.tolist(), strict=True)
            for row, lr, update in numbers:
                told = of_step(row, lr, update) | of_parts(row, lr, names)
                self._write(tagged(told, self._tag), step=history.first_step + first + done)
                self._met += 1
                done += 1
        return done

    def rewind(self) -> None:
        """Hand over anew what is recorded in place of steps that were dropped."""
        self._met = min(self._met, self._history.forgotten + len(self._history))

    def _pass_over(self, gone: int) -> None:
        """Leave out steps that can no longer be read; the first time, say so."""
        if gone <= 0:
            return
        if not self._lost:
            tell(
                f"{counted(gone, 'step')} of the history had been forgotten before they were "
                "logged: log more often, or give the history more max_bytes"
            )
        self._met += gone
        self._lost += gone

    def __repr__(self) -> str:
        lost = f", {self._lost:,} forgotten before" if self._lost else ""
        return f"Log({counted(self._met - self._lost, 'step')} handed over{lost})"


def latest(history: Ring, tag: str = "") -> dict[str, float]:
    """Return the numbers of ``History.latest``."""
    for rows, lrs, updates in history.pieces(len(history) - 1) if len(history) else ():
        return tagged(of_step(rows[0].double().cpu(), float(lrs[0]), float(updates[0])), tag)
    return {}


def of_step(row: Tensor, lr: float, update: float) -> dict[str, float]:
    """The numbers of a step ``[6, n_parts]``, as ``History.latest`` has them; NaN: not known."""
    before, after = row[:2].norm(dim=1).tolist()
    _, _, limits, factors, clipped, skipped = row.tolist()
    if len(factors) == 1:
        (times,) = factors
    else:
        times = after / before if 0 < before < math.inf else float(before == 0)
    numbers = {"norm_before": before, "norm_after": after}
    if limits and all(limit == limits[0] for limit in limits):
        numbers["threshold"] = limits[0]
    numbers["factor"] = 0.0 if any(skipped) else times
    numbers["clipped"] = sum(clipped) / max(1, len(clipped))
    numbers["skipped"] = float(any(skipped))
    if not math.isnan(lr):
        numbers |= {"lr": lr, "effective_lr": lr * numbers["factor"]}
    if not math.isnan(update):
        numbers["update_norm"] = update
    return numbers


def of_parts(row: Tensor, lr: float, names: list[str]) -> dict[str, float]:
    """The columns of a step ``[6, n_parts]`` for each of its parts, as ``norm_before/weight``."""
    numbers: dict[str, float] = {}
    for part, name in enumerate(names):
        told = dict(zip(ClipReport.fields, row[:, part].tolist(), strict=True))
        told["factor"] *= 1 - told["skipped"]
        if not math.isnan(lr):
            told["effective_lr"] = lr * told["factor"]
        numbers |= {f"{column}/{name}": value for column, value in told.items()}
    return numbers


def tagged(numbers: dict[str, float], tag: str) -> dict[str, float]:
    """The numbers under ``tag/``, or as they are."""
    return {f"{tag}/{name}": value for name, value in numbers.items()} if tag else numbers


def _as_function(target: object) -> Callable[..., object]:
    """What takes the numbers and ``step=``; ``ValueError`` for what cannot."""
    add = getattr(target, "add_scalar", None)
    if callable(add):

        def write(numbers: dict[str, float], step: int) -> None:
            for name, value in numbers.items():
                add(name, value, step)

        return write
    if not callable(target):
        hint = next((f": pass its .{name}" for name in METHODS if hasattr(target, name)), "")
        raise ValueError(
            f"log_to takes a function of (numbers, step=...) or a SummaryWriter, "
            f"got {described(target)}{hint}"
        )
    return target
