"""Limits steered by how often they are hit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliplab.checks import check_count, described
from cliplab.thresholds.base import Context, State, Threshold, check_single

_LEAST, _MOST = 2.0**-23, 80.0  # logarithms of the factors that fp32 tells from 1, and holds


class Decay(Threshold):
    """Lower the limit while steps keep hitting it.

    After ``patience`` hits (``n > c``) in a row ``c <- max(alpha * c, floor)`` and the count starts
    again; any other step sets it to zero. The limit never rises: with a ``floor`` above ``initial``
    it stays there.

    Args:
        initial: first limit c (norm), > 0.
        alpha: what c is multiplied by, in (0, 1).
        patience: hits in a row before that (steps).
        floor: smallest limit (norm).
    """

    def __init__(
        self, initial: float = 1.0, alpha: float = 0.9, patience: int = 5, floor: float = 1e-3
    ) -> None:
        super().__init__()
        self.initial = check_single("initial", initial)
        self.alpha = check_single("alpha", alpha)
        if self.alpha >= 1:
            raise ValueError(f"alpha must be between 0 and 1, got {described(alpha)}")
        self.patience = check_count("patience", patience)
        self.floor = check_single("floor", floor)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at the initial limit with no hits."""
        return {
            "limit": torch.full((n_parts,), self.initial, dtype=torch.float32, device=device),
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
    by exactly ``log(c_T / c_0) / (speed * T)``, whatever the sizes are distributed like (but for
    the rounding of c in fp32: ``1e-7 / speed`` at most). From the quantile it has found, c rises by
    ``exp(speed)`` a step at most and falls by ``exp(speed * rate)``. ``ValueError`` for a speed
    whose steps up or down fp32 cannot hold. Source: Andrew et al. 2019, for one gradient instead of
    many.

    Args:
        rate: wanted share of steps that are clipped, in (0, 1).
        initial: first limit c (norm), > 0.
        speed: change of log c at a step.
        low: smallest limit (norm).
        high: largest limit (norm).
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
        self.rate = check_single("rate", rate)
        if self.rate >= 1:
            percent = f"a share: {self.rate:g} % is {self.rate / 100:g}"
            raise ValueError(f"rate must be between 0 and 1, got {described(rate)} ({percent})")
        self.speed = check_single("speed", speed)
        least = _LEAST / min(self.rate, 1 - self.rate)
        if not least <= self.speed <= _MOST:
            bounds = f"{least:.2g} (at rate={self.rate:g}) and {_MOST:g}"
            raise ValueError(f"speed must be between {bounds}, got {described(speed)}")
        self.low, self.high = check_single("low", low), check_single("high", high)
        self.initial = check_single("initial", initial)
        if not self.low <= self.initial <= self.high:
            bounds = f"{self.low!r} and {self.high!r}"
            raise ValueError(f"initial must be between {bounds}, got {described(initial)}")

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at the initial limit."""
        limit = torch.full((n_parts,), self.initial, dtype=torch.float32, device=device)
        return {"limit": limit}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer with the limit as it stands, then move it."""
        limit = state["limit"]
        up, down = math.exp(self.speed * (1 - self.rate)), math.exp(-self.speed * self.rate)
        after = torch.where(sizes > limit, limit * up, limit * down)
        return limit, {"limit": after.clamp(self.low, self.high)}
