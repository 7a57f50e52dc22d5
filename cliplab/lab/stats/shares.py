"""Success shares: one with its interval; two of independent runs, an exact test and an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["boschloo", "difference_interval", "over_groups", "wilson"]

Floats = NDArray[np.float64]
TIE = 1e-10  # relative: far above the rounding of Fisher's p, below any gap that could matter
PRECISION = 5e-5  # relative, of the maximum over the common share


def boschloo(x: int, n: int, y: int, m: int) -> float:
    """Boschloo's exact unconditional two-sided p of x failures of n runs against y of m.

    Twice the smaller one-sided p, at most 1. The one-sided p is the largest probability, over the
    share that both groups have in common, of an outcome whose one-sided Fisher p is no larger than
    the observed one. It is found on a grid of shares, at most 5e-5 (relative) below the maximum.
    All outcomes of (n, m) are worked out at the first call, in time of order nm(n + m)^1.5.

    Raises ``ValueError`` if a count is no whole number, negative or above its runs, or n or m is 0.

    Source: Boschloo 1970, *Raised conditional level of significance for the 2x2-table when testing
    the equality of two probabilities* (doi:10.1111/j.1467-9574.1970.tb00104.x).

    >>> round(boschloo(0, 33, 5, 33), 4), boschloo(3, 33, 3, 33)
    (0.0356, 1.0)
    """
    (x, n), (y, m) = _counts(x, n), _counts(y, m)
    return min(1.0, 2 * float(min(_one_sided(n, m)[x, y], _one_sided(m, n)[y, x])))


@lru_cache(maxsize=64)
def _one_sided(n: int, m: int) -> Floats:
    """[n + 1, m + 1]: p against the alternative that the first share is the smaller one.

    Given the common share, P(Fisher's p <= c) = sum over s of P(s failures in all) F_s(c), where
    F_s(c) is the largest Fisher p up to c among the outcomes with s failures.
    """
    from scipy.stats import binom, hypergeom

    total = n + m
    failures, first = np.arange(total + 1), np.arange(n + 1)
    fisher = hypergeom.cdf(first, total, failures[:, None], n)  # [s, x], rises with x
    fisher = np.maximum.accumulate(fisher, axis=1)  # but for rounding
    # On the scale share = sin(angle)^2 the log probability bends down by 4 total at its maximum, at
    # most: half a step h away it has lost total h^2 / 2.
    n_angles = math.ceil(math.pi / 2 / math.sqrt(2 * PRECISION / total)) + 1
    share = np.sin(np.linspace(0, math.pi / 2, n_angles)) ** 2
    weights = binom.pmf(failures[:, None], total, share)  # [s, share]

    observed = fisher[np.add.outer(first, np.arange(m + 1)), first[:, None]]  # [x, y]
    levels = np.unique(observed)
    levels = levels[np.append(np.diff(levels) > TIE * levels[:-1], True)]  # the last of tied ones
    steps = np.pad(fisher, ((0, 0), (1, 0)))
    p = []
    for part in np.array_split(levels, 1 + levels.size // 1024):
        reached = [row[np.searchsorted(row[1:], part, side="right")] for row in steps]
        p.append((np.stack(reached, axis=1) @ weights).max(axis=1))
    table: Floats = np.concatenate(p)[np.searchsorted(levels, observed)]
    table.flags.writeable = False
    return table


def difference_interval(
    x: int, n: int, y: int, m: int, confidence: float = 0.90
) -> tuple[float, float]:
    """Miettinen and Nurminen's score interval of x/n - y/m, x failures of n runs and y of m.

    All differences d with (x/n - y/m - d)^2 <= z^2 V(d), where
    V(d) = (p(1 - p)/n + q(1 - q)/m) (n + m)/(n + m - 1) and p, q = p - d are the most likely shares
    at that difference. It exists, and has a width above 0, for every outcome.

    Raises ``ValueError`` if a count is no whole number, negative or above its runs, n or m is 0, or
    the confidence is not between 0 and 1.

    Source: Miettinen and Nurminen 1985, *Comparative analysis of two rates*
    (doi:10.1002/sim.4780040211).

    >>> low, high = difference_interval(0, 129, 0, 129)
    >>> round(low, 4), round(high, 4)
    (-0.0206, 0.0206)
    """
    (x, n), (y, m) = _counts(x, n), _counts(y, m)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r}, expected a number between 0 and 1")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return -_upper(y, m, x, n, z), _upper(x, n, y, m, z)


@lru_cache(maxsize=65536)
def _upper(x: int, n: int, y: int, m: int, z: float) -> float:
    """The upper limit of x/n - y/m, by bisection between the estimate and 1."""
    estimate = x / n - y / m
    inside, outside = estimate, 1.0
    for _ in range(52):
        middle = (inside + outside) / 2
        if (middle - estimate) ** 2 <= z * z * _variance(middle, x, n, y, m):
            inside = middle
        else:
            outside = middle
    return inside


def _variance(d: float, x: int, n: int, y: int, m: int) -> float:
    """Of x/n - y/m at the most likely shares that differ by d: a root of a cubic."""
    total = n + m
    a = ((n + 2 * m) * d - total - x - y) / (3 * total)
    b = ((m * d - total - 2 * y) * d + x + y) / (3 * total)
    c = y * d * (1 - d) / total
    half = a**3 - 1.5 * a * b + c / 2
    radius = math.copysign(math.sqrt(max(a * a - b, 0.0)), half)
    cosine = max(-1.0, min(1.0, half / radius**3)) if radius**3 else 0.0
    second = 2 * radius * math.cos((math.pi + math.acos(cosine)) / 3) - a
    second = max(0.0, -d, min(1.0, 1 - d, second))
    first = max(0.0, min(1.0, second + d))
    return (first * (1 - first) / n + second * (1 - second) / m) * total / (total - 1)


def wilson(x: int, n: int, confidence: float = 0.90) -> tuple[float, float]:
    """Wilson's score interval of the share x/n: all shares that x does not reject.

    Raises ``ValueError`` if a count is no whole number, negative or above n, or n is 0.

    Source: Wilson 1927, *Probable inference, the law of succession, and statistical inference*
    (doi:10.1080/01621459.1927.10502953).

    >>> low, high = wilson(0, 20)
    >>> low, round(high, 4)
    (0.0, 0.1192)
    """
    x, n = _counts(x, n)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle, half = x + z * z / 2, z * math.sqrt(x * (n - x) / n + z * z / 4)
    low, high = (middle - half) / (n + z * z), (middle + half) / (n + z * z)
    return (low if x else 0.0), (high if x < n else 1.0)


def over_groups(
    flags: Sequence[bool], groups: Sequence[str], confidence: float = 0.90, draws: int = 2000
) -> tuple[float, float]:
    """Percentile interval of a share where groups, not cases, are drawn: a bootstrap of clusters.

    The draws are always the same.

    >>> over_groups([True, True, False, False], ["a", "a", "b", "b"])
    (0.0, 1.0)
    """
    cases: dict[str, list[bool]] = {}
    for flag, group in zip(flags, groups, strict=True):
        cases.setdefault(group, []).append(flag)
    counts = np.array([(sum(own), len(own)) for own in cases.values()], dtype=float)
    drawn = np.random.default_rng(0).integers(len(counts), size=(draws, len(counts)))
    true, of = counts[drawn].sum(axis=1).T
    low, high = np.quantile(true / of, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _counts(failures: int, runs: int) -> tuple[int, int]:
    whole = all(isinstance(count, int | np.integer) for count in (failures, runs))
    if not whole or not 0 <= failures <= runs or runs < 1:
        raise ValueError(
            f"{failures!r} failures of {runs!r} runs, expected whole numbers, "
            "0 <= failures <= runs and at least one run"
        )
    return int(failures), int(runs)
