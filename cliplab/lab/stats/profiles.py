"""Performance profiles: which share of the runs of several tasks is within so much of the best.

Source: Agarwal et al. 2021, *Deep reinforcement learning at the edge of the statistical precipice*
(arXiv:2108.13264), section 4.2: the run-score distribution, averaged over tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Profile", "profile"]

Floats = NDArray[np.float64]


class Profile(NamedTuple):
    """Shares at each level, and the ends of their pointwise 90 % intervals."""

    share: Floats
    low: Floats
    high: Floats


def profile(
    tasks: Sequence[ArrayLike], levels: ArrayLike, *, reps: int = 1000, seed: int = 0
) -> Profile:
    """Share of runs at or below each level, every task with the same weight.

    ``tasks`` holds each task's runs on one scale, infinite where a run failed. The bootstrap draws
    runs within every task: the tasks are taken as given.

    >>> profile([[0.0, 2.0], [1.0, np.inf]], [0.5, 1.5, 9.0]).share.tolist()
    [0.25, 0.5, 0.75]
    """
    samples = [np.asarray(task, dtype=float) for task in tasks]
    if not samples or any(s.ndim != 1 or s.size == 0 or np.isnan(s).any() for s in samples):
        raise ValueError("tasks: expected vectors of numbers, none of them empty")
    rng = np.random.default_rng(seed)
    at = np.asarray(levels, dtype=float)
    within = [(s[:, None] <= at) for s in samples]
    drawn = [
        rng.multinomial(len(w), np.full(len(w), 1 / len(w)), size=reps) @ w / len(w) for w in within
    ]
    low, high = np.quantile(np.mean(drawn, axis=0), [0.05, 0.95], axis=0)
    return Profile(np.mean([w.mean(0) for w in within], axis=0), low, high)
