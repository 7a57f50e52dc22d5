"""Rank correlation over few units, with an interval that says how few they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

__all__ = ["Correlation", "rank_correlation"]


class Correlation(NamedTuple):
    """Spearman's coefficient, the ends of its interval (NaN: too few units), and the units."""

    rho: float
    low: float
    high: float
    n: int


def rank_correlation(
    x: Sequence[float], y: Sequence[float], confidence: float = 0.90
) -> Correlation:
    """Spearman's rank correlation, ties sharing their mean rank.

    The interval is Fisher's z with the variance (1 + rho^2 / 2) / (n - 3) of Bonett and Wright; a
    perfect order counts there as one with two neighbours exchanged, and has its far end at 1. NaN
    for fewer than four units, or where one side does not vary.

    Source: Bonett & Wright 2000, *Sample size requirements for estimating Pearson, Kendall and
    Spearman correlations* (doi:10.1007/BF02294183).

    >>> rank_correlation([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]).rho
    0.8
    """
    from scipy.stats import rankdata

    if len(x) != len(y) or not np.isfinite([*x, *y]).all():
        raise ValueError("x and y: expected as many numbers, all finite")
    n = len(x)
    if n < 4 or len(set(x)) == 1 or len(set(y)) == 1:
        return Correlation(math.nan, math.nan, math.nan, n)
    rho = float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    most = 1 - 6 / (n * (n * n - 1)) * 2
    inner = max(-most, min(most, rho))
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half = z * math.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = (math.tanh(math.atanh(inner) + side * half) for side in (-1, 1))
    return Correlation(round(rho, 12), -1.0 if rho < -most else low, 1.0 if rho > most else high, n)
