"""A straight line through estimates at several sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cliplab.lab.stats.paired import Estimate

__all__ = ["slope"]


def slope(x: Sequence[float], found: Sequence[Estimate]) -> Estimate:
    """The least-squares slope of independent estimates on x, with the interval they make together.

    A slope is a sum of the estimates with weights that x gives; squared distances to their limits
    add up, each limit taken from the side that its weight's sign says (Zou & Donner 2008,
    doi:10.1002/sim.3095). It has no p value of its own: 1. ``ValueError`` unless x has two values.

    >>> slope([-1, 1], [Estimate(0.0, -3.0, 3.0, 1.0, 9), Estimate(2.0, -2.0, 6.0, 1.0, 9)])
    Estimate(effect=1.0, low=-1.5, high=3.5, p=1.0, n=18)
    """
    centred = np.asarray(x, dtype=float) - np.mean(x)
    if not centred.any():
        raise ValueError(f"x = {list(x)}, expected at least two different values")
    weights = centred / (centred @ centred)
    effect, below, above = 0.0, [], []
    for weight, one in zip(weights.tolist(), found, strict=True):
        ends = (one.low, one.high) if weight >= 0 else (one.high, one.low)
        effect += weight * one.effect
        below.append(weight * (one.effect - ends[0]))
        above.append(weight * (ends[1] - one.effect))
    low, high = effect - math.hypot(*below), effect + math.hypot(*above)
    return Estimate(effect, low, high, 1.0, sum(one.n for one in found))
