"""What a diagnosis reads: a history on the CPU, and what else is known of its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cliplab.checks import check_positive, described
from cliplab.history import History
from cliplab.thresholds import Step

Losses = Sequence[float] | Tensor  # one for each step, NaN where it is not known

RAISED = 1.001  # a factor above it is not what rounding makes of a 1
BROUGHT = 1e-3  # of the limit: so near is a norm that was brought to it


class Recorded(Protocol):
    """What has a history, as a ``Clipper`` has."""

    history: History


@dataclass(frozen=True)
class Record:
    """The steps of a history.

    ``norms``, ``limits``, ``clipped``, ``raised`` (made larger) and ``skipped`` are
    ``[steps, n_parts]``; ``total`` and ``after`` (norms of the whole before and after clipping),
    ``fine`` (all is finite), ``lrs``, ``updates`` (norms, over the rate) and ``loss`` are
    ``[steps]``, NaN where unknown; ``numbers`` are the steps' own. ``lr`` is the median rate.
    ``normalises``: every part is brought to its limit, small ones as large ones. ``of_updates``:
    the norms are of updates, not gradients.
    """

    norms: Tensor
    limits: Tensor
    clipped: Tensor
    raised: Tensor
    skipped: Tensor
    total: Tensor
    after: Tensor
    fine: Tensor
    lrs: Tensor
    updates: Tensor
    loss: Tensor
    names: list[str]
    numbers: Tensor
    lr: float
    normalises: bool
    of_updates: bool

    @property
    def steps(self) -> Tensor:
        """The numbers of the finite steps."""
        return self.numbers[self.fine]

    @property
    def shortened(self) -> Tensor:
        """Which parts were clipped ``[steps, n_parts]``, in steps that were taken."""
        return self.clipped & ~self.skipped

    @property
    def begun(self) -> bool:
        """Whether the first steps are the run's: of a log, those up to its first row."""
        return len(self.numbers) > 1 and bool(2 * self.numbers[0] <= self.numbers[1])


def read(
    source: History | Recorded,
    lr: float | None,
    loss: Losses | None = None,
    steps: Tensor | None = None,
) -> Record:
    """The record of a history, or of what has one; ``lr`` where it has no learning rates."""
    given = math.nan if lr is None else check_positive("lr", lr)
    history = source if isinstance(source, History) else getattr(source, "history", None)
    if not isinstance(history, History):
        raise ValueError(f"diagnose needs a History or a Clipper, got {described(source)}")
    columns = Step(*(column.cpu() for column in history.columns))
    norms, skipped = columns.size.double(), columns.skipped.bool()
    rates = history.lr[history.lr.isfinite()]
    return Record(
        norms=norms,
        limits=columns.limit.double(),
        clipped=columns.clipped.bool(),
        raised=(columns.factor > RAISED) & ~skipped,
        skipped=skipped,
        total=norms.norm(dim=1),
        after=columns.after.double().norm(dim=1),
        fine=norms.isfinite().all(dim=1),
        lrs=history.lr if len(rates) else torch.full_like(history.lr, given),
        updates=history.update_norm,
        loss=_losses(loss, history),
        names=[] if history.scalar or norms.shape[1] == 1 else history.part_names,
        numbers=_numbers(steps, history),
        lr=float(rates.median()) if len(rates) else given,
        normalises=_normalises(source, columns),
        of_updates=getattr(source, "target", "gradient") == "update",
    )


def _normalises(source: Any, columns: Step[Tensor]) -> bool:
    """Whether all that has a limit is brought to it; a band leaves alone what is inside of it."""
    if getattr(source, "mode", None) == "normalise":
        return True
    size, limit = columns.size, columns.limit
    begun = limit.isfinite().cumsum(dim=0) > 0  # a band may also be open later on
    acts = begun & size.isfinite() & (size > 0) & ~columns.skipped.bool()
    brought = limit.isfinite() & ((columns.after - limit).abs() <= BROUGHT * limit)
    return bool((columns.factor > RAISED).any()) and bool(brought[acts].all())


def _losses(loss: Losses | None, history: History) -> Tensor:
    """The losses ``[steps]`` as doubles; NaN where none is given."""
    steps = len(history)
    if loss is None:
        return torch.full((steps,), math.nan, dtype=torch.float64, device="cpu")
    unreal = isinstance(loss, Tensor) and loss.is_complex()
    try:
        losses = torch.as_tensor(
            [[]] if unreal else loss, dtype=torch.float64, device="cpu"
        ).detach()
    except (TypeError, ValueError, RuntimeError):
        losses = torch.empty(0, 0, device="cpu")
    if losses.ndim != 1:
        raise ValueError(f"loss must be numbers on one axis, got {described(loss)}")
    if len(losses) != steps:
        last = history.first_step + steps - 1
        of = f" ({history.first_step} to {last})" if steps else ""
        raise ValueError(
            f"loss must have one number for each of the {steps} recorded steps{of}, "
            f"got {len(losses)}"
        )
    return losses


def _numbers(steps: Tensor | None, history: History) -> Tensor:
    """The numbers of the steps ``[steps]``: those given, else one after the other."""
    count = len(history)
    if steps is None:
        return torch.arange(count, device="cpu") + history.first_step
    if steps.dtype is not torch.int64 or steps.shape != (count,) or bool((steps.diff() < 1).any()):
        raise ValueError(
            f"steps must be whole numbers, ascending, one for each of the {count} recorded steps, "
            f"got {described(steps)}"
        )
    return steps.cpu()
