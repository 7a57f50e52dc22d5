"""A limit or policy of its own for every member: how one ensemble trains many configurations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab import Switch, Threshold
from cliplab.checks import check_positive
from cliplab.thresholds import Context

__all__ = ["each"]


class Limits(Threshold):
    """A fixed limit for every part: ``limits [n_parts]``."""

    def __init__(self, limits: Sequence[float]) -> None:
        super().__init__()
        self.limits = torch.tensor(limits, dtype=torch.float64)

    def step(
        self, sizes: Tensor, state: dict[str, Tensor], context: Context
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the limits as they are."""
        if len(sizes) != len(self.limits):
            raise ValueError(f"{len(self.limits)} limits for {len(sizes)} members")
        return self.limits.to(sizes), {}

    def __repr__(self) -> str:
        return f"Limits(of {len(self.limits)} members)"


def each(thresholds: Sequence[float | Threshold | None]) -> Threshold:
    """One policy in which member i has ``thresholds[i]``: a number, a policy, None for no clipping.

    >>> each([0.5, None, 2.0])
    Limits(of 3 members)
    """
    if not thresholds:
        raise ValueError("each needs at least one threshold")
    numbers = [
        math.inf
        if t is None or isinstance(t, Threshold)
        else check_positive(f"threshold of member {i}", t, zero=True)
        for i, t in enumerate(thresholds)
    ]
    limits = Limits(numbers)
    members = torch.arange(len(thresholds))
    policies = [(members == i, t) for i, t in enumerate(thresholds) if isinstance(t, Threshold)]
    if not policies:
        return limits
    plain = torch.tensor([not isinstance(t, Threshold) for t in thresholds])
    return Switch([*([(plain, limits)] if plain.any() else []), *policies])
