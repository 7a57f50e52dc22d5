"""The best of k configurations: its loss given success, and what two ways differ by.

K configurations were screened, the m best of each way were run again; r = 1 is the best. Of k
configurations drawn without replacement the best is the one of rank r with probability

    w_r = C(K - r, k - 1) / C(K, k).

Source: Dodge et al. 2019, *Show your work* (expected validation performance); the rest is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cliplab.lab.stats.paired import Estimate

__all__ = ["Ranked", "best_of", "loss_difference", "mean_difference", "usable_range", "weights"]

Floats = NDArray[np.float64]
DF = 8  # of the t distribution: two or three configurations carry the jackknife's variance


@cache
def weights(configurations: int, k: int, ranks: int) -> Floats:
    """How likely the best of k of K configurations is that of rank r, r = 1 .. ``ranks``.

    >>> weights(4, 2, 4).tolist()
    [0.5, 0.3333333333333333, 0.16666666666666666, 0.0]
    """
    if not 1 <= k <= configurations or ranks > configurations:
        raise ValueError(f"best of k = {k}, {ranks} ranks, of {configurations} configurations")
    every = math.comb(configurations, k)
    found = [math.comb(configurations - r, k - 1) / every for r in range(1, ranks + 1)]
    return np.array(found)


@dataclass(frozen=True)
class Ranked:
    """The finalists of one way, best first by screening: who they are, and their fresh runs.

    ``order [m]``: configurations; ``losses [m, n]``: test losses, NaN where a run failed.
    """

    order: tuple[int, ...]
    losses: Floats

    def loss(self, configurations: int, k: int) -> float:
        """Loss given success, ``sum_r w_r q_r mu_r / sum_r w_r q_r``; NaN where nothing succeeds.

        ``q_r`` is the share of runs that succeed, ``mu_r`` their mean loss.
        """
        succeeded, total = self._sums()
        return _ratio(weights(configurations, k, len(self.order)), succeeded, total)

    def without_each(self, configurations: int, k: int) -> dict[int | None, float]:
        """The same of one configuration fewer: by the finalist dropped, None for any other."""
        succeeded, total = self._sums()
        all_weights = weights(configurations - 1, k, len(self.order))
        found: dict[int | None, float] = {None: _ratio(all_weights, succeeded, total)}
        for place, configuration in enumerate(self.order):
            rest = [r for r in range(len(self.order)) if r != place]
            found[configuration] = _ratio(all_weights[: len(rest)], succeeded[rest], total[rest])
        return found

    def _sums(self) -> tuple[Floats, Floats]:
        """Share of each finalist's runs that succeed, and that share times their mean loss."""
        alive = ~np.isnan(self.losses)
        n = self.losses.shape[1]
        return alive.sum(1) / n, np.where(alive, self.losses, 0.0).sum(1) / n


def _ratio(w: Floats, succeeded: Floats, total: Floats) -> float:
    below = float(w @ succeeded)
    return float(w @ total) / below if below > 0 else math.nan


def loss_difference(
    first: Ranked, rival: Ranked, configurations: int, k: int, confidence: float = 0.90
) -> Estimate | None:
    """How much lower the first's loss given success is: G = L(rival) - L(first), None without one.

    The standard error is a jackknife over configurations, each dropped from both ways:
    ``SE^2 = (K - 1)/K sum_i (G_-i - mean)^2``; interval and p are those of t with 8 degrees of
    freedom. None: a way, or a way without one of its configurations, never succeeds.
    """
    return mean_difference([(first, rival)], configurations, k, confidence)


def mean_difference(
    folds: Sequence[tuple[Ranked, Ranked]], configurations: int, k: int, confidence: float = 0.90
) -> Estimate | None:
    """The mean of :func:`loss_difference` over folds that rank the same configurations anew.

    The jackknife drops a configuration from every fold at once. None: one of them has no loss.
    """
    from scipy.special import stdtr, stdtrit

    effects, drops = [], []
    for first, rival in folds:
        effects.append(rival.loss(configurations, k) - first.loss(configurations, k))
        of_first, of_rival = (way.without_each(configurations, k) for way in (first, rival))
        drops.append(
            [
                of_rival.get(i, of_rival[None]) - of_first.get(i, of_first[None])
                for i in range(configurations)
            ]
        )
    effect, dropped = float(np.mean(effects)), np.mean(drops, axis=0)
    if not math.isfinite(effect) or not np.isfinite(dropped).all():
        return None
    spread = float(((dropped - dropped.mean()) ** 2).sum())
    error = math.sqrt((configurations - 1) / configurations * spread)
    half = float(stdtrit(DF, (1 + confidence) / 2)) * error
    p = 2 * float(stdtr(DF, -abs(effect) / error)) if error > 0 else float(effect == 0)
    return Estimate(effect, effect - half, effect + half, p, configurations)


def usable_range(first: Floats, rival: Floats, confidence: float = 0.90) -> Estimate:
    """Difference of the shares of runs that work, from shares ``[K]`` of the same configurations.

    Mean of ``u_i = first_i - rival_i``, plus or minus ``t sqrt(s^2/K + (0.5/K)^2)``.
    """
    from scipy.special import stdtr, stdtrit

    u = first - rival
    n = len(u)
    error = math.sqrt(float(u.var(ddof=1)) / n + (0.5 / n) ** 2)
    mean, half = float(u.mean()), float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    return Estimate(mean, mean - half, mean + half, 2 * float(stdtr(n - 1, -abs(mean) / error)), n)


def best_of(scores: Floats, losses: Floats, most: int) -> Floats:
    """Expected loss of the best of k configurations, k = 1 .. ``most``: a description.

    ``scores, losses [K, S]``, failures at chance. Chosen on each seed, scored on the others.
    """
    n, seeds = scores.shape
    found = []
    for seed in range(seeds):
        others = [s for s in range(seeds) if s != seed] or [seed]
        ordered = losses[np.argsort(scores[:, seed], kind="stable")][:, others].mean(1)
        found.append([weights(n, k, n) @ ordered for k in range(1, min(most, n) + 1)])
    return np.mean(found, axis=0)
