"""The rule on runs made by hand: every word, every reason."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cliplab.lab.claims import Outcome
from cliplab.lab.claims.comparison import Measured, measure
from cliplab.lab.claims.rule import decide, multipliers
from cliplab.lab.claims.surfaces import SPACE, Noise, drawn, places, two_ways
from cliplab.lab.stats.paired import Estimate, holm
from cliplab.lab.study.results import WayRuns
from cliplab.lab.study.size import SIZES

FULL = SIZES["full"]
SPREAD = np.linspace(-0.1, 0.1, FULL.fresh)
UNSURE = [0.0, 5.0, 0.0, 5.0, 0.0, 5.0]  # added to finalists: two or three carry the difference


def way(level=0.0, failing=None, added=0.0):
    """A way's runs; ``failing`` of each pick's 43 runs failed, or none of the first 11.

    Configuration i is the i-th best, each 0.02 worse than the one before; ``added`` to the fresh
    losses of the finalists.
    """
    score = level + 0.02 * np.arange(FULL.configurations)
    screened = np.repeat(score[:, None], FULL.screening, 1)
    fresh = score[: FULL.finalists, None] + SPREAD
    runs = np.full((FULL.picks, 43 if failing else 11), float(level))
    for line, count in zip(runs, failing or (), strict=False):
        line[:count] = np.nan
    return WayRuns(FULL, screened, screened, fresh, fresh + np.reshape(added, (-1, 1)), runs)


NONE = (0, 0, 0)  # failed, of 43
CASES = {
    "helps by the loss": (way(), way(1.5), "helps", ""),
    "helps by failures": (way(failing=NONE), way(failing=(9, 9, 9)), "helps", ""),
    "helps by both": (way(failing=NONE), way(1.5, (9, 9, 9)), "helps", ""),
    "helps by failures, the loss unsure": (
        way(failing=NONE, added=UNSURE),
        way(2.0, (9, 9, 9)),
        "helps",
        "",
    ),
    "no matter": (way(), way(0.5), "no matter", ""),
    "no matter, with failures": (way(0, (1, 2, 1)), way(0.5, (2, 1, 1)), "no matter", ""),
    "each primary for one side": (way(0, (9, 9, 9)), way(1.5, NONE), "unclear", "mixed"),
    "the loss wins, failures point beyond their margin": (
        way(0, (0, 0, 14)),  # not shown: without that pick they fail alike
        way(1.5, NONE),
        "unclear",
        "mixed",
    ),
    "failures win, the loss is surely worse": (
        way(0.5, NONE),
        way(0, (9, 9, 9)),
        "unclear",
        "mixed",
    ),
    "failures win, the loss points beyond its margin": (
        way(0.5, NONE, added=UNSURE),
        way(0, (9, 9, 9)),
        "unclear",
        "mixed",
    ),
    "the loss wins, failures may be worse by their margin": (
        way(0, (3, 4, 4)),
        way(1.5, (2, 2, 1)),
        "unclear",
        "failures wide",
    ),
    "alike in loss, failures unsure": (
        way(0, (3, 4, 4)),
        way(0, (2, 2, 1)),
        "unclear",
        "failures wide",
    ),
    "nothing is sure": (way(added=UNSURE), way(), "unclear", "loss wide"),
    "large, but not shown": (way(added=UNSURE), way(4.0), "unclear", "loss wide"),
    "shown, but less than the margin": (
        way(added=[0, 0.3, 0, 0, 0, 0]),
        way(0.98),
        "unclear",
        "below margin",
    ),
    "failures shown, but less than their margin": (
        way(0, NONE),
        way(0, (4, 4, 4)),
        "unclear",
        "below margin",
    ),
    "failures of one pick": (way(0, (0, 0, 27)), way(0, NONE), "unclear", "below margin"),
}
MIRRORED = {"helps": "harms"}


def judged(first, rival, control=2.0, multiplier=25, **space):
    handicapped = way(control, added=0) if control else None
    measured = measure(first, rival, ("a", "b"), 1.0, handicapped=handicapped, **space)
    outcome, reason = decide(measured, 1.0, 0.10, multiplier)
    return str(outcome), reason


@pytest.mark.parametrize("case", CASES)
def test_words_and_reasons(case):
    first, rival, *expected = CASES[case]
    assert judged(first, rival) == tuple(expected)


@pytest.mark.parametrize("case", CASES)
def test_the_other_way_named_first_turns_the_word_over(case):
    first, rival, word, reason = CASES[case]
    assert judged(rival, first) == (MIRRORED.get(word, word), reason)


@pytest.mark.parametrize("control", [None, -2.0, 0.0, 0.5, 3.5])
def test_no_matter_needs_a_control_of_one_to_three_margins(control):
    assert judged(way(), way(), control) == ("unclear", "control")


@pytest.mark.parametrize("control", [1.0, 2.0, 3.0])
def test_controls_that_pass(control):
    assert judged(way(), way(), control)[0] == "no matter"


@pytest.mark.parametrize("control", [None, -2.0, 5.0])
def test_what_was_shown_needs_no_control(control):
    assert judged(way(), way(1.5), control)[0] == "helps"


@pytest.mark.parametrize("rival", [way(), way(1.5)])
def test_a_verdict_is_withheld_at_an_edge(rival):
    draws = [{"lr": 0.999 - i / 50, "threshold": 0.5} for i in range(FULL.configurations)]
    tuned = {"a": ["lr", "threshold"], "b": ["lr", "threshold"]}
    seen = {"space": SPACE, "tuned": tuned, "draws": draws}
    assert judged(way(), rival, **seen) == ("unclear", "edge")


def test_the_best_of_picks_may_not_carry_a_verdict_by_failures():
    """25 points more, in one pick of three: the share without it is the rival's."""
    assert judged(way(0, (27, 5, 5)), way(0, (5, 5, 5)))[0] == "unclear"
    assert judged(way(0, (15, 17, 16)), way(0, (5, 5, 5)))[0] == "harms"


def test_a_large_family_asks_for_more():
    first, rival = way(added=[0, 1, 0, 1, 0, 1]), way(2.0)
    assert judged(first, rival, multiplier=1) == ("helps", "")
    assert judged(first, rival, multiplier=1000) == ("unclear", "loss wide")


def test_after_a_step_that_was_not_rejected_nothing_is_shown():
    assert judged(way(), way(1.5), multiplier=None) == ("unclear", "loss wide")
    assert judged(way(), way(0.5), multiplier=None) == ("no matter", "")


def test_a_way_that_never_succeeds_is_decided_by_failures():
    lost = way(0, (43, 43, 43))
    lost.fresh_loss[:] = np.nan
    assert judged(lost, way(0, NONE)) == ("harms", "")
    assert judged(way(0, NONE), lost) == ("helps", "")
    assert judged(lost, lost) == ("unclear", "loss wide")


def test_two_primaries_halve_the_level():
    sure = Estimate(0.0, -0.05, 0.05, 1.0, 258)
    for p, word in ((0.0009, "helps"), (0.0011, "unclear")):  # 2 p 25 = 0.045 and 0.055
        measured = Measured(Estimate(1.5, 0.5, 2.5, p, 48), sure, 0.0)
        assert decide(measured, 1.0, 0.10, 25)[0] == word
        measured = Measured(None, Estimate(0.2, 0.1, 0.3, p, 258), 0.2)
        assert decide(measured, 1.0, 0.10, 25)[0] == word


SMALL_P = st.sampled_from([0.001, 0.002, 0.004, 0.006, 0.01, 0.012, 0.02, 0.04, 0.2])


@example([0.012, 0.012], 3)  # 0.012 x 5 is not rejected, so 0.012 x 4 is not asked
@given(st.lists(SMALL_P, min_size=1, max_size=8), st.integers(0, 20))
def test_multipliers_reject_what_holms_adjustment_rejects(p, more):
    family = len(p) + more
    adjusted = holm([*p, *[1.0] * more])[: len(p)]
    steps = multipliers(p, family)
    assert max(step for step in steps if step) == family
    rejected = [step is not None and x * step <= 0.05 for x, step in zip(p, steps, strict=True)]
    assert rejected == [a <= 0.05 for a in adjusted]


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    shift=st.sampled_from([0.0, 1.0, 2.0]),
    extra=st.sampled_from([0.0, 0.15, 0.3]),
    sd=st.sampled_from([0.2, 0.7]),
    multiplier=st.sampled_from([1, 5, 25]),
)
def test_swapping_first_and_rival_swaps_helps_and_harms(seed, shift, extra, sd, multiplier):
    rng, noise = np.random.default_rng(seed), Noise(sd)
    surface = drawn(noise, rng)
    points = places(SPACE.draws(FULL.configurations, seed))
    ways = two_ways((surface.worse(shift, 0), surface.worse(0, extra)), points, FULL, noise, rng)
    found, other = (measure(*pair, ("a", "b"), 1.0) for pair in (ways, ways[::-1]))
    said, turned = (decide(m, 1.0, 0.10, multiplier) for m in (found, other))
    swapped = {Outcome.HELPS: Outcome.HARMS, Outcome.HARMS: Outcome.HELPS}
    assert (swapped.get(said[0], said[0]), said[1]) == turned
    assert mirrored(found.failures) == other.failures
    assert found.loss is other.loss is None or mirrored(found.loss) == other.loss
    assert found.p == other.p


def mirrored(e):
    return Estimate(-e.effect, -e.high, -e.low, e.p, e.n)
