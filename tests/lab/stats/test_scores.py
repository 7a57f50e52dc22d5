import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from cliplab.lab.stats.scores import collapsed, interquartile_mean, probability_of_improvement

SCORES = st.lists(st.integers(-20, 20).map(float), min_size=5, max_size=12)


@settings(max_examples=40, deadline=None)
@given(SCORES, SCORES)
def test_the_probability_is_mann_and_whitneys_u(a, b):
    found = probability_of_improvement([a], [b], reps=50)
    expected = mannwhitneyu(a, b, method="asymptotic").statistic / (len(a) * len(b))
    assert found.estimate == pytest.approx(expected)
    assert 0 <= found.low <= found.high <= 1
    turned = probability_of_improvement([b], [a], reps=50)
    assert turned.estimate == pytest.approx(1 - found.estimate)


def test_the_middle_half_ignores_the_extremes():
    scores = np.array([-1e6, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e9])
    assert interquartile_mean([scores]).estimate == 3.5
    assert interquartile_mean([scores[:4], scores[4:]]).estimate == 3.5


@settings(max_examples=25, deadline=None)
@given(SCORES, st.floats(0.5, 3), st.floats(-5, 5))
def test_the_interval_moves_with_the_scores(scores, k, shift):
    one = interquartile_mean([scores], reps=60)
    other = interquartile_mean([[k * s + shift for s in scores]], reps=60)
    for name in ("estimate", "low", "high"):
        expected = k * getattr(one, name) + shift
        assert getattr(other, name) == pytest.approx(expected, abs=1e-9)


def test_intervals_cover_the_truth():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        found = interquartile_mean([rng.normal(1.0, 1.0, 30)], reps=200)
        hits += found.low <= 1.0 <= found.high
    assert 0.80 <= hits / 200 <= 0.96  # nominally 0.90; percentile intervals are a little short


def test_runs_are_drawn_within_their_task():
    # Two tasks whose runs all agree: nothing varies, however far apart the tasks are.
    found = interquartile_mean([[0.0] * 5, [10.0] * 5], reps=100)
    assert found.low == found.estimate == found.high == 5.0
    found = probability_of_improvement([[0.0] * 5, [10.0] * 5], [[1.0] * 5, [9.0] * 5], reps=100)
    assert found.low == found.estimate == found.high == 0.5


def test_fewer_than_5_runs_have_no_interval_and_nothing_is_refused():
    for few in ([[3.0]], [[3.0] * 4], [[3.0] * 9, [3.0] * 4]):
        found = interquartile_mean(few)
        assert found.estimate == 3.0
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert str(found) == "3.00"
    assert str(interquartile_mean([[1.0] * 5])) == "1.00 [1.00, 1.00]"
    for bad in ([], [[]], [[1.0, math.nan]]):
        with pytest.raises(ValueError, match="expected vectors of finite numbers"):
            interquartile_mean(bad)
    with pytest.raises(ValueError, match="the same tasks twice, got 1 and 2"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])


def test_a_collapse_is_a_loss_of_half_of_what_was_gained():
    nan = math.nan
    curves = [[nan, 20.0, -500.0, 21.0], [120.0, 30.0, -100.0, 30.0], [70.0, nan, -200.0, 20.0]]
    final = [69.0, 400.0, -301.0, 20.0]
    found = [
        collapsed(np.array(curves)[:, [m]], [final[m]], floor=floor, least=50.0)[0]
        for m, floor in enumerate((20.0, 20.0, -500.0, 20.0))
    ]
    # Half of 120 - 20 is lost at 69; still rising; half of 400 is lost at -301; never gained 50.
    assert found == [True, False, True, False]
    assert not collapsed([[120.0]], [70.0], floor=20.0, least=50.0)[0]
