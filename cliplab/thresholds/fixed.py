"""The policies with a limit of their own, and those made of other policies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import check_positive, described
from cliplab.thresholds.base import Context, State, Threshold, check_single


class Fixed(Threshold):
    """The same limit at every step: ``limit = c``. ``inf`` means never.

    Args:
        value: c (norm), >= 0.

    >>> Fixed(1.0)
    Fixed(value=1.0)
    """

    stateless = True

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = check_positive("threshold", value, zero=True)

    def __call__(self, sizes: Tensor, context: Context) -> Tensor:
        """Return ``c`` for every part."""
        return torch.full_like(sizes, fitting(self.value, sizes))


def fitting(limit: float, sizes: Tensor) -> float:
    """A limit that the sizes' dtype can hold: what is above all of them is none."""
    return limit if limit <= torch.finfo(sizes.dtype).max else math.inf


class Scheduled(Threshold):
    """Any function of step and learning rate: ``limit = fn(step, lr)``, a number >= 0.

    ``step`` counts from 0; ``lr`` is None where the clipper is not attached to an optimizer.
    Raises ``ValueError`` for any other answer. Only the product of limit and learning rate
    matters where every step is clipped; a limit proportional to the learning rate:

    >>> policy = Scheduled(lambda step, lr: 100 * lr)
    >>> policy.init(1)
    >>> policy(torch.tensor([5.0]), Context(active=torch.tensor([True]), step=0, lr=0.02))
    tensor([2.])

    Args:
        fn: called as ``fn(step, lr)``; answers a limit (norm).
    """

    stateless = True

    def __init__(self, fn: Callable[[int, Any], float]) -> None:
        super().__init__()
        if not callable(fn):
            raise ValueError(f"Scheduled needs a function of step and lr, got {described(fn)}")
        self.fn = fn

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Ask the function."""
        limit = self.fn(context.step, context.lr)
        limit = check_positive(f"the limit at step {context.step}", limit, zero=True)
        return torch.full_like(sizes, fitting(limit, sizes)), {}


class RateScaled(Threshold):
    """Loosen as the learning rate falls: ``limit = c / sqrt(lr / rate)`` (KataGo).

    ``rate`` is the learning rate at which the limit is c; None stands for the first above 0 that is
    seen. The ratio counts as 1e-7 at least. ``ValueError`` where no learning rate is known: only an
    attached clipper knows it. Source: lightvector/KataGo, ``python/train.py``.

    Args:
        value: the limit c at the learning rate ``rate`` (norm), >= 0.
        rate: a learning rate, > 0, or None.
    """

    def __init__(self, value: float = 1.0, rate: float | None = None) -> None:
        super().__init__()
        self.value = check_positive("threshold", value, zero=True)
        self.rate = None if rate is None else check_single("rate", rate)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at the rate given, or with none seen."""
        rate = 0.0 if self.rate is None else self.rate
        return {"rate": torch.full((n_parts,), rate, dtype=torch.float32, device=device)}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Compare the learning rate with the first one."""
        lr = context.lr
        if lr is None or (not isinstance(lr, Tensor) and math.isnan(lr)):
            raise ValueError(
                "this policy's limit follows the learning rate, which is not known: attach() the "
                "clipper to an optimizer that has one"
            )
        now = lr.to(sizes) if isinstance(lr, Tensor) else sizes.new_full((), lr)
        now = now.expand_as(sizes)
        rate = torch.where(state["rate"] > 0, state["rate"], now)
        ratio = torch.where(rate > 0, now / rate, 1.0).clamp(min=1e-7)
        return fitting(self.value, sizes) / ratio.to(sizes).sqrt(), {"rate": rate}


def as_policy(threshold: float | Threshold) -> Threshold:
    """Return a number as ``Fixed``, and a policy as a copy, so that no state is shared.

    ``ValueError`` for anything else.

    Args:
        threshold: a number or a policy.

    >>> as_policy(2.0)
    Fixed(value=2.0)
    """
    if isinstance(threshold, Threshold):
        return copy.deepcopy(threshold)
    if not isinstance(threshold, Number | Tensor):
        raise ValueError(
            "threshold must be a number or a policy such as EMA(); by name: "
            f"cliplab.create('autoclip', ...), got {described(threshold)}"
        )
    return Fixed(threshold)
