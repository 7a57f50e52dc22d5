"""The slope of estimates over sizes."""

import numpy as np
import pytest

from cliplab.lab.stats.paired import Estimate
from cliplab.lab.stats.trend import slope


def normal(effect, half):
    return Estimate(effect, effect - half, effect + half, 0.5, 10)


def test_it_is_the_least_squares_slope_with_the_error_of_independent_estimates():
    x, effects, halves = [-1.0, 0.2, 1.1], [0.3, -0.1, 0.8], [0.1, 0.4, 0.2]
    found = slope(x, [normal(*one) for one in zip(effects, halves, strict=True)])
    assert found.effect == pytest.approx(np.polyfit(x, effects, 1)[0])
    weights = (np.array(x) - np.mean(x)) / np.var(x) / 3
    error = np.sqrt(((weights * halves) ** 2).sum())
    assert (found.low, found.high) == pytest.approx((found.effect - error, found.effect + error))
    assert found.n == 30


def test_a_lopsided_interval_counts_on_the_side_that_its_weight_turns_it_to():
    lopsided = Estimate(0.0, -1.0, 3.0, 0.5, 10)
    rising = slope([0, 1], [normal(0, 0), lopsided])
    falling = slope([0, 1], [lopsided, normal(0, 0)])
    assert (rising.low, rising.high) == (-1.0, 3.0)
    assert (falling.low, falling.high) == (-3.0, 1.0)


def test_one_size_has_no_slope():
    with pytest.raises(ValueError, match="two different values"):
        slope([1.0, 1.0], [normal(0, 1)] * 2)
