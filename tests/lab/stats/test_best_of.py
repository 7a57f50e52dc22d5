import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cliplab.lab.stats.best_of import Ranked, best_of, loss_difference, usable_range, weights

K, BEST, M, N = 12, 4, 5, 3


def ranked(rng, failing=0.2, level=0.0):
    losses = level + rng.normal(size=(M, N)).cumsum(0)
    losses[1:][rng.random((M - 1, N)) < failing] = np.nan
    return Ranked(tuple(map(int, rng.permutation(K)[:M])), losses)


pairs = st.integers(0, 10**6).map(lambda seed: np.random.default_rng(seed))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_weights_over_all_ranks_sum_to_one(sizes):
    n, k = sizes
    assert weights(n, k, n).sum() == pytest.approx(1, rel=1e-12)


def test_weights_are_the_shares_of_all_subsets_with_that_best():
    subsets = list(itertools.combinations(range(1, 8), 3))
    shares = [np.mean([min(s) == r for s in subsets]) for r in range(1, 8)]
    assert weights(7, 3, 7) == pytest.approx(shares, abs=1e-12)


def test_six_finalists_hold_nine_tenths_of_the_weight():
    assert weights(48, 16, 6).sum() == pytest.approx(0.92, abs=0.015)


@pytest.mark.parametrize(("n", "k", "ranks"), [(4, 0, 2), (4, 5, 2), (4, 2, 5)])
def test_weights_of_no_such_draw_are_an_error(n, k, ranks):
    with pytest.raises(ValueError, match=f"best of k = {k}, {ranks} ranks, of {n}"):
        weights(n, k, ranks)


def test_loss_given_success_by_hand():
    way = Ranked((3, 0), np.array([[1.0, np.nan], [2.0, 4.0]]))  # weights 1/2 and 1/3, of (4, 2)
    assert way.loss(4, 2) == pytest.approx((1 / 2 * 1 / 2 * 1 + 1 / 3 * 1 * 3) / (1 / 4 + 1 / 3))


def dropped_by_hand(way, gone):
    """The loss of a way whose list of finalists never held a configuration."""
    kept = [(i, line) for i, line in zip(way.order, way.losses, strict=True) if i != gone]
    above = below = 0.0
    for r, (_, line) in enumerate(kept, 1):
        w = math.comb(K - 1 - r, BEST - 1) / math.comb(K - 1, BEST)
        alive = [x for x in line if not math.isnan(x)]
        if alive:
            q = len(alive) / len(line)
            above += w * q * (sum(alive) / len(alive))
            below += w * q
    return above / below


@settings(max_examples=50)
@given(pairs)
def test_the_interval_is_a_jackknife_over_configurations(rng):
    first, rival = ranked(rng), ranked(rng)
    found = loss_difference(first, rival, K, BEST)
    g = [dropped_by_hand(rival, i) - dropped_by_hand(first, i) for i in range(K)]
    error = math.sqrt((K - 1) / K * sum((x - sum(g) / K) ** 2 for x in g))
    effect = rival.loss(K, BEST) - first.loss(K, BEST)
    assert found.effect == pytest.approx(effect)
    half = stats.t(8).ppf(0.95) * error
    assert (found.low, found.high) == pytest.approx((effect - half, effect + half), abs=1e-9)
    assert found.p == pytest.approx(2 * stats.t(8).sf(abs(effect) / error), abs=1e-9)


@given(pairs, st.floats(-100, 100))
def test_a_constant_added_to_all_losses_changes_nothing(rng, constant):
    first, rival = ranked(rng), ranked(rng)
    moved = [Ranked(way.order, way.losses + constant) for way in (first, rival)]
    before, after = loss_difference(first, rival, K, BEST), loss_difference(*moved, K, BEST)
    assert after.effect == pytest.approx(before.effect, abs=1e-10)
    assert (after.low, after.high) == pytest.approx((before.low, before.high), abs=1e-9)


@given(pairs, st.floats(0.1, 3))
def test_a_better_first_way_moves_effect_and_interval_up_by_as_much(rng, gain):
    first, rival = ranked(rng), ranked(rng)
    before = loss_difference(first, rival, K, BEST)
    after = loss_difference(Ranked(first.order, first.losses - gain), rival, K, BEST)
    assert after.effect == pytest.approx(before.effect + gain)
    assert after.high - after.low == pytest.approx(before.high - before.low)


@given(pairs)
def test_swapping_the_ways_mirrors_the_estimate(rng):
    first, rival = ranked(rng), ranked(rng)
    found, other = (loss_difference(*ways, K, BEST) for ways in ((first, rival), (rival, first)))
    assert (found.effect, found.low, found.high, found.p) == (
        -other.effect,
        -other.high,
        -other.low,
        other.p,
    )


def test_a_way_is_no_better_than_itself():
    way = ranked(np.random.default_rng(0))
    found = loss_difference(way, way, K, BEST)
    assert (found.effect, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_failures_are_no_loss():
    """A run that fails leaves the mean of its configuration as it is, and its weight smaller."""
    losses = np.array([[1.0, 1.0], [3.0, 3.0]])
    every = Ranked((0, 1), losses).loss(4, 2)
    failing = Ranked((0, 1), np.array([[1.0, np.nan], [3.0, 3.0]])).loss(4, 2)
    assert 1 < every < failing < 3
    assert Ranked((0, 1), np.array([[1.0, np.nan], [1.0, 1.0]])).loss(4, 2) == 1


@pytest.mark.parametrize("rows", [[], [1]])
def test_no_interval_where_success_hangs_on_one_configuration(rows):
    losses = np.full((M, N), np.nan)
    losses[rows] = 1.0
    way = Ranked(tuple(range(M)), losses)
    assert loss_difference(way, ranked(np.random.default_rng(0)), K, BEST) is None


def test_usable_range_by_hand():
    first, rival = np.array([1.0, 1.0, 0.5, 0.0]), np.array([0.5, 0.0, 0.5, 0.0])
    u = first - rival
    half = stats.t(3).ppf(0.95) * math.sqrt(u.var(ddof=1) / 4 + (0.5 / 4) ** 2)
    found = usable_range(first, rival)
    assert (found.effect, found.low, found.high) == pytest.approx(
        (0.375, 0.375 - half, 0.375 + half)
    )


def test_usable_range_of_equal_ways_has_a_width():
    same = np.ones(48)
    found = usable_range(same, same)
    assert found.low < 0 == found.effect < found.high
    assert found.p == 1


def test_best_of_one_is_the_mean_and_more_are_better():
    losses = np.random.default_rng(0).normal(size=(20, 1))
    curve = best_of(losses, losses, 20)
    assert curve[0] == pytest.approx(losses.mean())
    assert curve[-1] == losses.min()
    assert (np.diff(curve) < 0).all()


def test_best_of_is_scored_on_other_seeds_than_it_was_chosen_on():
    """Two configurations, each good on one seed: whichever is chosen scores badly."""
    losses = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert best_of(losses, losses, 2).tolist() == [0.5, 1.0]
