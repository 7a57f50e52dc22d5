"""Rank correlation: its value against scipy, its interval by how often it covers the truth."""

import math

import numpy as np
import pytest

from cliplab.lab.stats.ranks import rank_correlation


def test_it_is_spearmans_with_ties():
    from scipy.stats import spearmanr

    x, y = [1.0, 2, 2, 4, 5, 7, 0], [3.0, 1, 2, 2, 8, 9, 0]
    found = rank_correlation(x, y)
    assert found.rho == pytest.approx(spearmanr(x, y).statistic)
    assert found.low < found.rho < found.high
    mirrored = rank_correlation(x, [-v for v in y])
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_a_perfect_order_of_few_is_no_certainty():
    few, more = (rank_correlation(range(n), range(n)) for n in (5, 20))
    assert few.rho == few.high == more.rho == 1
    assert few.low < 0.5 < more.low < 1
    down = rank_correlation(range(5), range(5)[::-1])
    assert (down.rho, down.low, down.high) == pytest.approx((-1, -1, -few.low))


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])])
def test_too_few_or_all_alike_give_nothing(x, y):
    found = rank_correlation(x, y)
    assert found.n == len(x)
    assert all(map(math.isnan, found[:3]))


@pytest.mark.parametrize("y", [[1.0, 2, 3], [1.0, 2, 3, math.nan]])
def test_what_cannot_be_ranked_is_refused(y):
    with pytest.raises(ValueError, match="as many numbers, all finite"):
        rank_correlation([1.0, 2, 3, 4], y)


@pytest.mark.parametrize("r", [0.0, 0.7])
def test_the_interval_covers_what_is_true(r):
    rng = np.random.default_rng(1)
    truth = 6 / math.pi * math.asin(r / 2)  # Spearman's of a normal pair
    covered = 0
    for _ in range(400):
        x, e = rng.standard_normal((2, 10))
        found = rank_correlation(x, r * x + math.sqrt(1 - r * r) * e)
        covered += found.low <= truth <= found.high
    assert 0.85 <= covered / 400 <= 0.96
