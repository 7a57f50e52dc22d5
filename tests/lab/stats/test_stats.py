import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial, wilcoxon

from cliplab.lab.stats.paired import holm, mcnemar, paired

values = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=14)
flips = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


def enumerated_p(d):
    """The two-sided p by brute force, zeros on the side that helps the effect least."""
    d = np.asarray(d)
    magnitude = np.abs(d)
    ranks = (magnitude[:, None] > magnitude).sum(1) + (
        (magnitude[:, None] == magnitude).sum(1) + 1
    ) / 2
    against = min(ranks[d > 0].sum(), ranks[d < 0].sum()) + ranks[d == 0].sum()
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(d))]
    return min(1.0, 2 * np.mean(np.array(sums) <= against))


@given(st.sets(st.integers(1, 1000), min_size=1, max_size=25), st.randoms(use_true_random=False))
def test_p_is_scipys_exact_one_without_ties(magnitudes, random):
    d = [random.choice((-1, 1)) * m / 8 for m in magnitudes]
    assert paired(d).p == pytest.approx(wilcoxon(d, method="exact").pvalue, rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=9))
def test_p_with_ties_and_zeros_is_the_enumerated_one(d):
    assert paired(d).p == pytest.approx(enumerated_p(d), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=9))
def test_no_way_to_break_zeros_has_a_larger_p(d):
    zeros = [i for i, x in enumerate(d) if x == 0]
    p = paired(d).p
    for signs in itertools.product((-1e-3, 1e-3), repeat=len(zeros)):
        broken = list(d)
        for i, sign in zip(zeros, signs, strict=True):
            broken[i] = sign
        assert paired(broken).p <= p + 1e-12


@given(values)
def test_flipping_every_sign_mirrors_the_estimate(d):
    e, m = paired(d), paired([-x for x in d])
    assert (m.effect, m.low, m.high, m.p) == (-e.effect, -e.high, -e.low, e.p)


@given(values, st.integers(-50, 50))
def test_estimate_and_interval_move_with_the_data(d, shift):
    e, m = paired(d), paired([x + shift for x in d])
    assert (m.effect, m.low, m.high) == (e.effect + shift, e.low + shift, e.high + shift)


@given(values)
def test_interval_holds_the_estimate(d):
    e = paired(d)
    assert e.low <= e.effect <= e.high
    assert 0 < e.p <= 1


@given(values)
def test_an_interval_above_zero_has_p_below_a_tenth(d):
    assume(len(set(map(abs, d))) == len(d) and 0 not in d)
    e = paired(d)
    assert (e.low > 0 or e.high < 0) == (e.p <= 0.1)


def test_interval_is_the_textbook_one():
    # n = 12, 90 %: the 18th smallest and largest of the 78 Walsh averages (critical value 17).
    d = np.array([0.3, 1.1, -0.4, 2.2, 0.9, 1.7, -1.3, 0.6, 2.9, 0.1, 1.4, 0.8])
    walsh = sorted((d[i] + d[j]) / 2 for i in range(12) for j in range(i, 12))
    e = paired(d)
    assert (e.low, e.high) == (walsh[17], walsh[-18])
    assert e.effect == (walsh[38] + walsh[39]) / 2


def test_four_pairs_have_no_interval_and_five_do():
    assert (paired([1.0] * 4).low, paired([1.0] * 4).high) == (-math.inf, math.inf)
    assert (paired([1.0] * 5).low, paired([1.0] * 5).high) == (1.0, 1.0)


def test_differences_that_are_all_zero_show_nothing():
    e = paired(np.zeros(12))
    assert (e.effect, e.low, e.high, e.p, e.n) == (0, 0, 0, 1, 12)


def test_wilcoxon_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for draw in (
        rng.standard_normal,
        lambda n: rng.standard_t(2, n),
        lambda n: rng.integers(-2, 3, n),
    ):
        estimates = [paired(draw(12)) for _ in range(1500)]
        assert np.mean([e.low <= 0 <= e.high for e in estimates]) > 0.88
        assert np.mean([e.p <= 0.05 for e in estimates]) < 0.065


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0]]])
def test_differences_must_be_finite_numbers(bad):
    with pytest.raises(ValueError, match="expected finite numbers"):
        paired(bad)


@given(flips)
def test_mcnemar_p_is_the_binomial_one(pairs):
    a, b = map(np.array, zip(*pairs, strict=True))
    wins, losses = int((a & ~b).sum()), int((b & ~a).sum())
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar(a, b).p == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=40)
@given(flips)
def test_mcnemar_is_antisymmetric_and_holds_its_estimate(pairs):
    a, b = map(np.array, zip(*pairs, strict=True))
    e, m = mcnemar(a, b), mcnemar(b, a)
    assert e.effect == pytest.approx(a.mean() - b.mean())
    assert (m.effect, m.low, m.high, m.p) == (-e.effect, -e.high, -e.low, e.p)
    assert -1 <= e.low <= e.effect <= e.high <= 1


@pytest.mark.parametrize("n", [5, 12, 16])
def test_mcnemar_interval_covers_at_every_truth(n):
    """Not simulated: the exact probability of a miss, over a grid of all truths."""
    tables = [(wins, losses) for wins in range(n + 1) for losses in range(n + 1 - wins)]
    estimates = [mcnemar(*arms(n, *table)) for table in tables]
    low, high = np.array([(e.low, e.high) for e in estimates]).T
    counts = np.array([(wins, losses, n - wins - losses) for wins, losses in tables])
    for rate, win_share in itertools.product(np.linspace(0, 1, 21), repeat=2):
        p = np.array([rate * win_share, rate * (1 - win_share), 1 - rate])
        mass, truth = multinomial.pmf(counts, n, p), p[0] - p[1]
        assert mass[low > truth + 0.001].sum() <= 0.05
        assert mass[high < truth - 0.001].sum() <= 0.05


def test_mcnemar_limits_known_in_closed_form():
    # No discordant pair: (1 - x)^12 = .05. Twelve wins of twelve: ((1 + x) / 2)^12 = .05.
    assert mcnemar(*arms(12, 0, 0)).high == pytest.approx(1 - 0.05 ** (1 / 12), abs=0.005)
    assert mcnemar(*arms(12, 12, 0)).low == pytest.approx(2 * 0.05 ** (1 / 12) - 1, abs=0.005)
    assert mcnemar(*arms(12, 12, 0)).high == 1


def arms(n, wins, losses):
    a = np.arange(n) < wins
    return a, (np.arange(n) >= wins) & (np.arange(n) < wins + losses)


@pytest.mark.parametrize(
    ("a", "b"), [([1, 0], [0, 1]), ([True], [True, False]), ([], []), ([0.5], [True])]
)
def test_mcnemar_wants_booleans_in_pairs(a, b):
    with pytest.raises(ValueError, match="two boolean vectors"):
        mcnemar(a, b)


def test_holm_by_hand():
    # sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and never below the one before
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_closed_testing_with_bonferroni(p_values):
    """By its definition: the largest Bonferroni p of any group of tests that holds this one."""
    subsets = [
        subset
        for size in range(1, len(p_values) + 1)
        for subset in itertools.combinations(range(len(p_values)), size)
    ]
    bonferroni = {s: min(1, len(s) * min(p_values[i] for i in s)) for s in subsets}
    expected = [max(bonferroni[s] for s in subsets if i in s) for i in range(len(p_values))]
    assert holm(p_values) == pytest.approx(expected)
