"""Policies that raise what is small, too: to a band, or all sizes to one target."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliplab.checks import check_count, check_flag, check_positive, described
from cliplab.thresholds.base import (
    Context,
    State,
    Threshold,
    check_decay,
    check_single,
    learnt_share,
)
from cliplab.thresholds.response import Band

Pair = tuple[float, float]


class AdaNorm(Threshold):
    """Raise a size to the running mean of the sizes: ``s <- r * s + (1 - r) * n``, no upper limit.

    The current size is part of the mean, which starts at 0 and is not corrected for it: a constant
    stream is never raised. A size of 0 stays. Published, what is raised enters Adam's first moment
    alone; here it is the gradient, of both moments. Source: Dubey, Singh, Chaudhuri 2023.

    Args:
        r: share of the running mean that is kept at a step, in [0, 1).
    """

    band = True

    def __init__(self, r: float = 0.95) -> None:
        super().__init__()
        self.r = check_decay("r", r)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at a mean of 0."""
        return {"mean": torch.zeros(n_parts, dtype=torch.float32, device=device)}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Band, State]:
        """Learn the size, then answer."""
        mean = state["mean"].lerp(sizes, 1 - self.r)
        return Band(mean, torch.full_like(mean, math.inf)), {"mean": mean}


class AGGC(Threshold):
    """A band around the running mean S of the sizes as they leave it.

    Above ``high * S`` a size is lowered to that, by no factor below ``caps[0]``; with
    ``raise_small`` it is raised below ``max(floor, low * S)``, by no factor above ``caps[1]``. S
    starts at 0, while nothing is lowered. ``low`` and ``high`` are (early, late): of ``steps`` in
    all the share ``turn[0]`` is early, and they move linearly during the share ``turn[1]``. Where
    ``high`` is below 1, as published, a constant stream of sizes meets the factor ``caps[0]`` at
    every step but the first. Source: Li, Wu, Chang 2026, its code and the values of its scripts.

    Args:
        beta: share of S that is kept at a step, in [0, 1).
        low: early and late multiple of S below which a size is raised.
        high: early and late multiple of S above which it is lowered.
        steps: steps of the whole training; None: early values all the time.
        turn: shares of ``steps``: that are early, and over which the values move.
        floor: size up to which small sizes are raised at least (norm).
        caps: smallest and largest factor.
        raise_small: raise sizes, too; without it they are lowered only.
    """

    band = True

    def __init__(
        self,
        beta: float = 0.95,
        low: Pair = (0.95, 0.98),
        high: Pair = (0.6, 0.7),
        steps: int | None = None,
        turn: Pair = (0.4, 0.3),
        floor: float = 0.01,
        caps: Pair = (0.9, 1.1),
        raise_small: bool = False,
    ) -> None:
        super().__init__()
        self.beta, self.floor = check_decay("beta", beta), check_single("floor", floor, zero=True)
        self.low, self.high = _pair("low", low), _pair("high", high)
        self.steps = None if steps is None else check_count("steps", steps)
        self.turn, self.caps = _pair("turn", turn), _pair("caps", caps)
        self.raise_small = check_flag("raise_small", raise_small)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at a mean of 0."""
        return {"mean": torch.zeros(n_parts, dtype=torch.float32, device=device)}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Band, State]:
        """Answer, then learn the size as it is now."""
        mean, late = state["mean"], self._late(context.step)
        low, high = (early + late * (then - early) for early, then in (self.low, self.high))
        top = torch.maximum(high * mean, self.caps[0] * sizes).where(mean > 0, math.inf)
        raised = torch.minimum((low * mean).clamp(min=self.floor), self.caps[1] * sizes)
        band = Band(raised if self.raise_small else torch.zeros_like(mean), top)
        limit, outside = band.at(sizes)
        return band, {"mean": mean.lerp(torch.where(outside, limit, sizes), 1 - self.beta)}

    def _late(self, step: int) -> float:
        """How far the multipliers have moved, from 0 to 1."""
        past = 0.0 if self.steps is None else step / self.steps - self.turn[0]
        return min(max(past / max(self.turn[1], 1e-6), 0.0), 1.0)


class GradientStabilizer(Threshold):
    """For ``mode="normalise"``: running mean over running root mean square, ``m / (v + eps)``.

    ``m <- gamma1 * m + (1 - gamma1) * n`` and ``v^2 <- gamma2 * v^2 + (1 - gamma2) * n^2`` with the
    current size, each over ``1 - gamma^t``. Of a constant stream the target is 1, whatever its
    size; a spike of 10 after a long stream of 1 has the target 4.4. Sizes of 0 are not learnt.
    Source: Huang et al. 2026 (GradientStabilizer, the AdaGN of Stable-SPAM), and its code.

    Args:
        gamma1: share of the mean m that is kept at a step, in [0, 1).
        gamma2: share of the mean square v^2 that is kept, in [0, 1).
        eps: added to the root mean square (norm), > 0.
    """

    def __init__(self, gamma1: float = 0.6, gamma2: float = 0.999, eps: float = 1e-12) -> None:
        super().__init__()
        self.gamma1, self.gamma2 = check_decay("gamma1", gamma1), check_decay("gamma2", gamma2)
        self.eps = check_single("eps", eps)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with nothing seen."""
        return {
            "mean": torch.zeros(n_parts, dtype=torch.float32, device=device),
            # not the mean square: it would overflow
            "rms": torch.zeros(n_parts, dtype=torch.float32, device=device),
            "count": torch.zeros(n_parts, dtype=torch.long, device=device),
        }

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Learn the size, then answer."""
        new = sizes > 0
        kept, added = math.sqrt(self.gamma2), math.sqrt(1 - self.gamma2)
        mean = torch.where(new, state["mean"].lerp(sizes, 1 - self.gamma1), state["mean"])
        rms = torch.where(new, torch.hypot(kept * state["rms"], added * sizes), state["rms"])
        count = state["count"] + new
        share1, share2 = (learnt_share(g, count) for g in (self.gamma1, self.gamma2))
        target = mean / share1 / (rms / share2.sqrt() + self.eps)
        return target, {"mean": mean, "rms": rms, "count": count}


def _pair(name: str, value: Pair) -> Pair:
    """Return two numbers >= 0."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers >= 0, got {described(value)}")
    first, second = (check_positive(f"each of {name}", x, zero=True) for x in value)
    return first, second
