"""Limits steered by how often they are hit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliplab.checks import check_count, check_positive
from cliplab.thresholds.base import Context, State, Threshold


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
