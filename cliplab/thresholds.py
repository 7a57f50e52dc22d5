"""The policies with a limit of their own, and those made of other policies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from cliplab.checks import check_count, check_positive
from cliplab.policy import Context, State, Threshold


class Fixed(Threshold):
    """The same limit at every step: ``limit = c``. ``inf`` means never.

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


class Decay(Threshold):
    """Lower the limit while steps keep hitting it.

    After ``patience`` hits in a row ``c <- max(alpha * c, floor)`` and the count starts again;
    a step below the limit sets the count to zero.
    """

    def __init__(
        self, initial: float = 1.0, alpha: float = 0.9, patience: int = 5, floor: float = 1e-3
    ) -> None:
        super().__init__()
        self.initial = check_positive("initial", initial)
        self.alpha = check_positive("alpha", alpha)
        if self.alpha >= 1:
            raise ValueError(f"alpha must be between 0 and 1, got {alpha!r}")
        self.patience = check_count("patience", patience)
        self.floor = check_positive("floor", floor)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at the initial limit with no hits."""
        return {
            "limit": torch.full((n_parts,), self.initial, device=device),
            "hits": torch.zeros(n_parts, dtype=torch.long, device=device),
        }

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer with the limit as it stands, then count the hit."""
        limit = state["limit"]
        hits = torch.where(sizes > limit, state["hits"] + 1, 0)
        lower = hits >= self.patience
        after = torch.where(
            lower, (limit * self.alpha).clamp(min=min(self.floor, self.initial)), limit
        )
        return limit, {"limit": after, "hits": torch.where(lower, 0, hits)}


class TargetRate(Threshold):
    """Steer to a wanted clip frequency: ``c <- c * exp(speed * (hit - rate))``, per part.

    ``hit`` is 1 where ``n > c``. Inside ``[low, high]`` the frequency over T steps is off ``rate``
    by exactly ``log(c_T / c_0) / (speed * T)``, whatever the sizes are distributed like. From the
    quantile it has found, c rises by ``exp(speed)`` a step at most and falls by
    ``exp(speed * rate)``. Source: Andrew et al. 2019, for one gradient instead of many.
    """

    def __init__(
        self,
        rate: float = 0.05,
        initial: float = 1.0,
        speed: float = 0.2,
        low: float = 1e-8,
        high: float = 1e8,
    ) -> None:
        super().__init__()
        self.rate = check_positive("rate", rate)
        if self.rate >= 1:
            raise ValueError(f"rate must be between 0 and 1, got {rate!r}")
        self.speed = check_positive("speed", speed)
        self.low, self.high = check_positive("low", low), check_positive("high", high)
        self.initial = check_positive("initial", initial)
        if not self.low <= self.initial <= self.high:
            raise ValueError(f"initial must be between {low!r} and {high!r}, got {initial!r}")

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at the initial limit."""
        return {"limit": torch.full((n_parts,), self.initial, device=device)}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer with the limit as it stands, then move it."""
        limit = state["limit"]
        up, down = math.exp(self.speed * (1 - self.rate)), math.exp(-self.speed * self.rate)
        after = limit * torch.where(sizes > limit, up, down)
        return limit, {"limit": after.clamp(self.low, self.high)}


class Scheduled(Threshold):
    """Any function of step and learning rate: ``limit = fn(step, lr)``, a number >= 0.

    ``step`` counts from 0; ``lr`` is None where the clipper is not attached to an optimizer.
    Raises ``ValueError`` for any other answer. Only the product of limit and learning rate
    matters where every step is clipped; a limit proportional to the learning rate:

    >>> policy = Scheduled(lambda step, lr: 100 * lr)
    >>> policy.init(1)
    >>> policy(torch.tensor([5.0]), Context(active=torch.tensor([True]), step=0, lr=0.02))
    tensor([2.])
    """

    stateless = True

    def __init__(self, fn: Callable[[int, float | None], float]) -> None:
        super().__init__()
        if not callable(fn):
            raise ValueError(f"Scheduled needs a function of step and lr, got {fn!r}")
        self.fn = fn

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Ask the function."""
        limit = self.fn(context.step, context.lr)
        limit = check_positive(f"the limit at step {context.step}", limit, zero=True)
        return torch.full_like(sizes, fitting(limit, sizes)), {}


def as_policy(threshold: float | Threshold) -> Threshold:
    """Return a number as ``Fixed``, and a policy as a copy, so that no state is shared.

    >>> as_policy(2.0)
    Fixed(value=2.0)
    """
    return copy.deepcopy(threshold) if isinstance(threshold, Threshold) else Fixed(threshold)
