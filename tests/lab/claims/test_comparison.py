from dataclasses import replace
from unittest.mock import ANY

import numpy as np
import pytest

from cliplab.lab.claims.comparison import measure
from cliplab.lab.stats.best_of import Ranked, loss_difference
from cliplab.lab.stats.shares import boschloo, difference_interval
from cliplab.lab.study import SIZES, Choice, Linear, Log, Space
from cliplab.lab.study.results import WayRuns

FULL = SIZES["full"]
RNG = np.random.default_rng(0)


def way(level=0.0, failing=(0, 0, 0), runs=43, size=FULL, best=0):
    """A way whose configuration ``best`` is the best, the next ones worse by 0.1 each.

    ``failing`` of its picks' runs failed, the first ones.
    """
    k = size.configurations
    score = level + 0.1 * np.roll(np.arange(k), best)
    screened = np.repeat(score[:, None], size.screening, 1)
    fresh = np.sort(score)[: size.finalists, None] + 0.1 * RNG.normal(
        size=(size.finalists, size.fresh)
    )
    picks = np.full((size.picks, runs if size.runs[1] else 0), float(level))
    for line, count in zip(picks, failing, strict=False):
        line[:count] = np.nan
    return WayRuns(size, screened, screened, fresh, fresh, picks)


def measured(first, rival, **more):
    return measure(first, rival, ("norm", "none"), 1.0, **more)


def test_the_loss_is_that_of_the_finalists_on_fresh_seeds():
    first, rival = way(), way(0.3, best=5)
    ranked = [Ranked(tuple(w.ranked()), w.fresh_loss) for w in (first, rival)]
    assert ranked[1].order == (5, 6, 7, 8, 9, 10)
    found = measured(first, rival)
    assert found.loss == loss_difference(*ranked, 48, 16)
    assert found.loss.effect > 0  # the first is better
    assert found.levels["loss"] == [r.loss(48, 16) for r in ranked]


def test_scores_of_screening_do_not_enter_the_loss():
    first, rival = way(), way(0.3)
    again = replace(rival, screened_loss=rival.screened_loss + 7, fresh_score=rival.fresh_score + 7)
    assert measured(first, again).loss == measured(first, rival).loss


def test_failures_are_counted_over_the_picks():
    found = measured(way(failing=(1, 2, 3)), way(failing=(10, 4, 6)))
    low, high = difference_interval(20, 129, 6, 129)
    assert found.failures.effect == pytest.approx(14 / 129)
    assert (found.failures.low, found.failures.high) == (low, high)
    assert found.failures.p == boschloo(20, 129, 6, 129)
    assert found.levels["failures"] == [(6, 129, [1, 2, 3]), (20, 129, [10, 4, 6])]


def test_leaving_out_the_worse_ways_worst_and_the_better_ways_best_pick():
    found = measured(way(failing=(1, 2, 3)), way(failing=(10, 4, 6)))
    assert found.left_out == pytest.approx(((4 + 6) - (2 + 3)) / 86)
    assert measured(way(failing=(10, 4, 6)), way(failing=(1, 2, 3))).left_out == -found.left_out


def test_without_a_failure_in_the_first_runs_nothing_is_shown():
    stopped = measured(way(runs=11), way(runs=11)).failures
    assert (stopped.effect, stopped.p, stopped.n) == (0, 1, 66)
    assert stopped.high == difference_interval(0, 33, 0, 33)[1] < 0.10


def test_runs_added_for_another_comparison_do_not_count():
    """A way extended for its other rival is compared by its first runs, where none failed."""
    longer = way(failing=(9, 9, 9))
    longer = replace(longer, pick_loss=longer.pick_loss[:, ::-1])  # in its last runs
    assert measured(longer, way(runs=11)).failures == measured(way(runs=11), way(runs=11)).failures


def test_p_is_twice_the_smaller_of_both():
    by_failures = measured(way(), way(failing=(8, 8, 8)))
    assert by_failures.p == 2 * by_failures.failures.p < 1
    by_loss = measured(way(runs=11), way(0.5, runs=11))
    assert by_loss.p == 2 * by_loss.loss.p < 1
    assert measured(way(runs=11, best=3), way(runs=11, best=3)).p <= 1


def test_a_way_that_hardly_ever_succeeds_has_no_loss():
    lost = way(failing=(43, 43, 43))
    lost.fresh_loss[1:] = np.nan
    found = measured(way(), lost)
    assert found.loss is None
    assert found.p == 2 * found.failures.p
    lost.fresh_loss[:] = np.nan
    assert measured(way(), lost).levels["loss"][1] is None


def test_the_control_is_the_handicapped_rival_against_the_first():
    found = measured(way(), way(0.5), handicapped=way(2.5))
    assert found.control.effect == pytest.approx(2.5, abs=0.2)
    assert measured(way(), way(0.5)).control is None


def test_the_spread_is_that_of_the_finalists_runs():
    first, rival = way(), way(3.0)
    first.fresh_loss[0, :11] = np.nan  # one run left: no spread
    lines = [*first.fresh_loss[1:], *rival.fresh_loss]
    expected = np.sqrt(np.mean([np.var(line, ddof=1) for line in lines]))
    assert measured(first, rival).levels["sd"] == pytest.approx(expected)


def test_usable_range_counts_runs_within_two_margins_of_the_better_way():
    first, rival = way(), way(1.0)  # 0.1 a rank: 21 and 11 configurations below 2.0 or so
    rival.screened_loss[:3] = np.nan
    space = Space(lr=Log(0.01, 1.0))
    line = min(measured(first, rival).levels["loss"]) + 2
    shares = [np.mean(w.screened_loss <= line) for w in (first, rival)]
    assert 0.4 < shares[0] < 0.5 > 0.2 > shares[1] > 0
    found = measured(first, rival, space=space)
    assert found.usable.effect == pytest.approx(2 * (shares[0] - shares[1]))
    assert found.levels["usable"] == pytest.approx([2 * share for share in shares])
    bare = measured(first, rival).usable
    assert 2 * bare.high == pytest.approx(found.usable.high)
    assert bare.p == found.usable.p


EDGES = Space(lr=Log(0.01, 1.0), threshold=Linear(0.0, 1.0, open_high=True), kind=Choice("a", "b"))


def edges(lr, threshold, size=FULL):
    """The edges seen where these are the places of the configurations, best first."""
    k = size.configurations
    rows = zip(lr + [0.5] * k, threshold + [0.5] * k, range(k), strict=False)
    draws = [{"lr": 0.01 * 100**a, "threshold": b, "kind": "a"} for a, b, _ in rows]
    tuned = {"norm": ["lr", "threshold", "kind"], "none": ["lr"]}
    pair = (way(size=size, runs=11), way(size=size, runs=11))
    return measured(*pair, space=EDGES, tuned=tuned, draws=draws).edges


MIDDLE = [0.5] * 8


def test_an_edge_is_where_the_first_pick_and_five_of_the_best_eight_lie():
    assert edges([0.95, 0.85, 0.85, 0.85, 0.85], MIDDLE) == (
        "norm: lr at its high end",
        "none: lr at its high end",
    )
    assert edges([0.05, 0.15, 0.15, 0.15, 0.15], MIDDLE)[0] == "norm: lr at its low end"
    assert edges(MIDDLE, [0.05, 0.15, 0.15, 0.15, 0.15]) == ("norm: threshold at its low end",)


@pytest.mark.parametrize(
    ("lr", "threshold"),
    [
        ([0.95, 0.85, 0.85, 0.85], MIDDLE),  # four of eight
        ([0.89, 0.95, 0.95, 0.95, 0.95], MIDDLE),  # the pick is not in the outer tenth
        ([0.95, 0.75, 0.75, 0.75, 0.75], MIDDLE),  # the others not in the outer fifth
        ([0.95, 0.05, 0.05, 0.05, 0.05], MIDDLE),  # at two ends
        (MIDDLE, [0.95, 0.85, 0.85, 0.85, 0.85]),  # a natural end
    ],
)
def test_no_edge(lr, threshold):
    assert edges(lr, threshold) == ()


def test_a_small_study_does_not_look_at_edges():
    assert edges([0.95] * 12, [0.05] * 12, SIZES["small"]) == ()


def test_a_small_study_takes_failures_from_its_finalists():
    small = SIZES["small"]
    first, rival = way(size=small), way(size=small)
    rival.fresh_loss[0, 0] = np.nan
    found = measured(first, rival)
    assert found.levels["failures"] == [(0, 12, [0, 0, 0]), (1, 12, ANY)]
    assert sorted(found.levels["failures"][1][2]) == [0, 0, 1]
    assert found.failures.p == 1


def noted(first_pick, other, failing=0):
    rival = way()
    for line, level in zip(rival.pick_loss, (first_pick, other, 9.0), strict=True):
        line[:] = level + 0.1 * RNG.normal(size=43)
    rival.pick_loss[1, :failing] = np.nan
    return measured(way(), rival).notes


def test_a_rivals_pick_that_is_better_by_more_than_a_margin_is_noted():
    note = "none: pick 2 is better than the first by more than a margin"
    assert noted(1.5, 0.0) == (note,)
    assert noted(0.9, 0.0) == noted(0.0, 1.5) == ()
    assert noted(1.05, 0.0) == ()  # not shown at 11 seeds
    assert noted(1.5, 0.0, failing=1) == ()
