"""The response: what a gradient of some size is answered with, given its limit.

``factor = min(1, limit / size)``, or what another mode makes of the two: every rule of the
literature says what is measured and where the limit comes from; what follows is this file, for
every part on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

Mode = Literal["rescale", "soft", "skip", "normalise"]
NonFinite = Literal["raise", "skip", "zero", "propagate"]

Column = TypeVar("Column", Tensor, float)

LARGEST = 2.0**126  # of all factors: finite in bf16 too, and its inverse is a normal fp32 number


class Step(NamedTuple, Generic[Column]):
    """What a step does, in columns of one dtype: ``[n_parts]`` each, or the numbers of one part.

    ``size`` before and ``after`` clipping (the very same object where nothing acts), the ``limit``
    in force, the ``factor`` that the part is multiplied by; and, as 0 or 1, ``clipped`` (the size
    was above the limit) and ``skipped`` (the step should not be taken).

    Args:
        size: sizes before clipping.
        after: sizes after it.
        limit: the limits in force.
        factor: what every part is multiplied by.
        clipped: 0 or 1, whether the size was above the limit.
        skipped: 0 or 1, whether the step should not be taken.
    """

    size: Column
    after: Column
    limit: Column
    factor: Column
    clipped: Column
    skipped: Column


AnyStep = Step[Tensor] | Step[float]


class Band(NamedTuple):
    """Limits on both sides, ``[n_parts]`` each: sizes below ``low`` are raised to it, too.

    A size of 0 stays, and one above ``high`` is lowered to it wherever ``low`` may be. A policy
    that answers with a band says ``band = True``; it goes with mode "rescale" alone.

    Args:
        low: what smaller sizes are raised to, ``[n_parts]``.
        high: what larger sizes are lowered to, ``[n_parts]``.
    """

    low: Tensor
    high: Tensor

    def to(self, kind: Any) -> Band:
        """Both as a tensor's ``to`` would have them."""
        return Band(self.low.to(kind), self.high.to(kind))

    def clone(self) -> Band:
        """Copies of both."""
        return Band(self.low.clone(), self.high.clone())

    def at(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """The limit in force for every size, and whether the size is to be brought to it."""
        over = sizes > self.high
        under = (sizes > 0) & (sizes < self.low) & self.low.isfinite() & ~over
        return torch.where(under, self.low, self.high), over | under


Limits = Tensor | Band


def on_both_sides(function: Callable[..., Any], *limits: Limits) -> Limits:
    """A function of limits, of their lows and of their highs where any is a band.

    >>> on_both_sides(torch.neg, Band(torch.tensor([1.0]), torch.tensor([2.0])))
    Band(low=tensor([-1.]), high=tensor([-2.]))
    """
    if not any(isinstance(limit, Band) for limit in limits):
        only: Tensor = function(*limits)
        return only
    bands = [x if isinstance(x, Band) else Band(torch.zeros_like(x), x) for x in limits]
    return Band(function(*(b.low for b in bands)), function(*(b.high for b in bands)))


def as_column(column: Tensor | float) -> Tensor:
    """A column as a tensor ``[n_parts]``; a number, of a step in fp32 on a CPU, as one part's.

    Args:
        column: a tensor ``[n_parts]``, or the number of one part.
    """
    if isinstance(column, Tensor):
        return column
    return torch.tensor([column], dtype=torch.float32, device="cpu")


def clip_factor(sizes: Tensor, limits: Tensor | float, within: Tensor) -> Tensor:
    """``limits / sizes``, but 1 within: ``min(1, c / n)`` for ``within = n <= c``.

    Args:
        sizes: ``n``, of any shape.
        limits: ``c``, of that shape, or a number.
        within: bools of that shape, where the factor is 1.

    >>> sizes, limits = torch.tensor([5.0, 0.5]), torch.tensor([1.0, 1.0])
    >>> clip_factor(sizes, limits, sizes <= limits)
    tensor([0.2000, 1.0000])
    """
    return (limits / sizes).masked_fill_(within, 1.0)


def respond(
    sizes: Tensor,
    limits: Limits,
    finite: Tensor | None = None,
    mode: Mode | Literal["clamp"] = "rescale",
    nonfinite: NonFinite | Literal["leave"] = "leave",
) -> Step[Tensor]:
    """What to do about sizes ``[n_parts]`` under limits ``[n_parts]``. Nothing is changed.

    ``finite`` is the mask of finite sizes, None where a look, free there, found that all are.
    ``mode``: "rescale" (``min(1, c / n)``), "soft" (``c / (c + n)``), "normalise" (``c / n``, at
    most 2^126), "skip" (the whole step, if any part is above its limit), or "clamp" (entry by
    entry: sizes are those of the largest, and the factor is left to be measured). Outside of a
    ``Band``, which goes with "rescale" alone, sizes are brought to the nearer end, by 2^126 at most
    (recorded is that end, inside of it ``high``). A size of 0 and an infinite limit have factor 1.
    What is not finite is left as it is ("leave"), makes all of the step be "skip"ped, becomes
    "zero", or meets the factor as any other ("propagate", "raise").

    Args:
        sizes: of the parts, ``[n_parts]``.
        limits: ``[n_parts]``, or a ``Band`` of two.
        finite: bools ``[n_parts]``, or None.
        mode: what is done about a size above its limit.
        nonfinite: what is done about one that is not finite.

    >>> step = respond(torch.tensor([5.0, 0.5]), torch.tensor([1.0, 1.0]))
    >>> step.factor, step.after
    (tensor([0.2000, 1.0000]), tensor([1.0000, 0.5000]))
    """
    outside = None
    if isinstance(limits, Band):
        limits, outside = limits.at(sizes)
    over = sizes > limits
    acts = over if outside is None else outside
    if finite is None and mode == "rescale" and not bool(acts.any()):  # a look is free
        none = torch.zeros_like(sizes)
        return Step(sizes, sizes, limits, torch.ones_like(sizes), none, none)
    if finite is not None and nonfinite == "zero":
        over = over & finite
    skip = over.any() if mode == "skip" else None
    if finite is not None and nonfinite == "skip":
        skip = ~finite.all() if skip is None else skip | ~finite.all()
    if mode == "skip":
        factor, after = torch.ones_like(sizes), sizes
    elif mode == "clamp":
        factor, after = torch.ones_like(sizes), torch.minimum(sizes, limits)
        after = after if skip is None else torch.where(skip, sizes, after)
    else:
        if mode != "rescale":
            acts = limits.isfinite() & (sizes > 0)
        if finite is not None:
            acts = _acting(acts, limits, finite, skip, nonfinite)
        factor = _FACTORS["normalise" if outside is not None else mode](sizes, limits, ~acts)
        after = sizes * factor
    if finite is not None and nonfinite == "zero":
        factor, after = factor.where(finite, 0.0), after.where(finite, 0.0)
    step = Step(sizes, after, limits, factor, over.to(sizes.dtype), torch.zeros_like(sizes))
    return step if skip is None else left_out(step, skip)


def _soft_factor(sizes: Tensor, limits: Tensor, within: Tensor) -> Tensor:
    """``c / (c + n)``, but 1 within; of the halves where ``c + n`` is above the largest float."""
    total, half = limits + sizes, limits / 2
    large = total.isinf()
    total = torch.where(large, half + sizes / 2, total)
    return clip_factor(total, torch.where(large, half, limits), within)


def _normalising_factor(sizes: Tensor, limits: Tensor, within: Tensor) -> Tensor:
    """``c / n``, but 1 within; no more than ``LARGEST``: an infinite factor makes NaN of a 0."""
    return clip_factor(sizes, limits, within).clamp_(max=LARGEST)


_FACTORS = {"rescale": clip_factor, "soft": _soft_factor, "normalise": _normalising_factor}


def left_out(step: Step[Tensor], flag: Tensor) -> Step[Tensor]:
    """The same step, not to be taken if ``flag`` (a scalar) says so.

    Args:
        step: what was to be done.
        flag: a bool tensor ``[]``.
    """
    return step._replace(skipped=step.skipped.logical_or(flag).to(step.size.dtype))


def _acting(
    acts: Tensor, limits: Tensor, finite: Tensor, skip: Tensor | None, nonfinite: str
) -> Tensor:
    """Which parts meet their factor where some may not be finite."""
    if nonfinite in ("propagate", "raise"):
        # no limit, no factor: inf / inf would turn one bad entry into a bad gradient
        return (acts | ~finite) & limits.isfinite()
    acts = acts & finite
    return acts if skip is None else acts & ~skip
