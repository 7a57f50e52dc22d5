"""Few noisy runs summed up: interquartile means, probabilities of improvement, collapses.

Source: Agarwal et al. 2021, *Deep reinforcement learning at the edge of the statistical precipice*
(arXiv:2108.13264). A task is a set of runs; the bootstrap draws runs within every task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Interval", "collapsed", "interquartile_mean", "probability_of_improvement"]

Floats = NDArray[np.float64]
LEAST_RUNS = 5  # of a task: a bootstrap of fewer is far too short


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 90 % bootstrap interval; NaN where a task has few runs."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.estimate:.2f}"
        return f"{self.estimate:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interquartile_mean(tasks: Sequence[ArrayLike], *, reps: int = 1000, seed: int = 0) -> Interval:
    """Mean of the middle half of all runs of all tasks, with a stratified bootstrap.

    ``tasks`` holds the scores of every task's runs, on one scale.

    >>> interquartile_mean([[0.0, 1.0, 1.0, 9.0]]).estimate
    1.0
    """
    from scipy.stats import trim_mean

    def middle(*own: Floats, axis: int = -1) -> Floats:
        return np.asarray(trim_mean(np.concatenate(own, axis=axis), 0.25, axis=axis))

    return _stratified(tasks, middle, reps, seed)


def probability_of_improvement(
    first: Sequence[ArrayLike], second: Sequence[ArrayLike], *, reps: int = 1000, seed: int = 0
) -> Interval:
    """P(a run of the first beats a run of the second), ties half, averaged over tasks.

    The estimate is Mann and Whitney's U over the number of pairs. Pairing by seed is not used.

    >>> probability_of_improvement([[1.0, 2.0]], [[0.0, 1.0]]).estimate
    0.875
    """
    n = len(first)
    if len(second) != n:
        raise ValueError(f"expected the same tasks twice, got {n} and {len(second)}")

    def share(*own: Floats, axis: int = -1) -> Floats:
        pairs = zip(own[:n], own[n:], strict=True)
        return np.mean([_wins(a, b) for a, b in pairs], axis=0)

    return _stratified([*first, *second], share, reps, seed)


def _wins(a: Floats, b: Floats) -> Floats:
    a, b = a[..., :, None], b[..., None, :]
    return np.mean((a > b) + 0.5 * (a == b), axis=(-2, -1))


def _stratified(
    tasks: Sequence[ArrayLike], statistic: Callable[..., Floats], reps: int, seed: int
) -> Interval:
    from scipy.stats import bootstrap

    samples = [np.asarray(task, dtype=float) for task in tasks]
    if not samples or any(s.ndim != 1 or s.size == 0 or not np.isfinite(s).all() for s in samples):
        raise ValueError(
            f"tasks = {tasks!r}, expected vectors of finite numbers, none of them empty"
        )
    estimate = float(statistic(*samples))
    if min(s.size for s in samples) < LEAST_RUNS:
        return Interval(estimate, math.nan, math.nan)
    found = bootstrap(
        samples,
        statistic,
        n_resamples=reps,
        vectorized=True,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(estimate, float(found.low), float(found.high))


def collapsed(
    curves: ArrayLike, final: ArrayLike, *, floor: float, least: float, share: float = 0.5
) -> NDArray[np.bool_]:
    """Whether runs lost more than a ``share`` of what they had once gained: ``[U, M], [M] -> [M]``.

    ``curves`` are smoothed returns (NaN: none yet), ``final`` is what counts as the end, a gain is
    measured from ``floor``, the return of a random policy. A run that never gained ``least`` has
    nothing to lose and is no collapse.

    >>> collapsed([[20.0, 20.0], [100.0, 90.0]], [50.0, 80.0], floor=20.0, least=10.0)
    array([ True, False])
    """
    end = np.asarray(final, dtype=float)
    best = np.fmax(np.fmax.reduce(np.asarray(curves, dtype=float), axis=0), end)
    lost: NDArray[np.bool_] = (best - end > share * (best - floor)) & (best - floor >= least)
    return lost
