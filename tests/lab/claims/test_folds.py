"""A comparison over folds: each ranks its own configurations, and the mean over them is judged."""

import math
from dataclasses import replace

import numpy as np
import pytest
from studying import MARGIN, comparison, study, surface

from cliplab.lab.claims import Outcome, judge
from cliplab.lab.claims.comparison import measure
from cliplab.lab.claims.folds import over_folds
from cliplab.lab.claims.studied import measured_of, ways_of
from cliplab.lab.claims.surfaces import Noise, mean_noise
from cliplab.lab.study import Log, Space


def fold(year, train=None, **changes):
    """The toy study as a fold of "toy"."""
    found = study(train, **changes)
    found.name = f"toy: {year}"
    return found


def rows_of(folds, size="small", seed=3):
    return [row for one in folds for row in one.run(size, seed)]


def about(folds):
    return {one.name: one.about() for one in folds}


def at(place):
    """A ``train`` without noise whose best rate is 10 to the place."""

    def train(configurations, seeds):
        rows = []
        for c in configurations:
            loss = 2 + (math.log10(c["lr"]) - place) ** 2
            own = {"val_loss": loss, "test_loss": loss, "diverged": False}
            rows.append(own | {"early_val_loss": loss + 0.2, "early_test_loss": loss + 0.2})
        return rows

    return train


def test_the_mean_over_folds_that_are_alike_is_one_of_them():
    single = rows_of([study(surface(gain=0.05))])
    folds = [fold(year, surface(gain=0.05)) for year in (2007, 2010)]
    one, _ = measured_of(comparison(), single, {})
    two, _ = measured_of(comparison(), rows_of(folds), about(folds))
    for name in ("loss", "control"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a.effect, a.low, a.high, a.p) == pytest.approx((b.effect, b.low, b.high, b.p))
    assert two.levels["loss"] == pytest.approx(one.levels["loss"])
    assert two.levels["sd"] == pytest.approx(one.levels["sd"])
    assert two.usable.effect == pytest.approx(3 * one.usable.effect)  # decades: the space is known
    assert two.levels["best_of"] == [pytest.approx(line) for line in one.levels["best_of"]]


def test_what_helps_in_one_fold_and_harms_in_another_is_nothing_on_the_mean():
    folds = [fold(2007, surface(gain=0.3, sd=0.01)), fold(2010, surface(gain=-0.3, sd=0.01))]
    found, _ = measured_of(comparison(), rows_of(folds), about(folds))
    assert abs(found.loss.effect) < 0.05
    assert found.loss.low < 0 < found.loss.high


def test_every_fold_chooses_for_itself():
    folds = [fold(2007, at(-1.5)), fold(2010, at(0.5))]
    rows = rows_of(folds)
    ways = ways_of(comparison(), rows, about(folds))
    chosen = []
    for name, place in (("toy: 2007", -1.5), ("toy: 2010", 0.5)):
        top = ways[name].rival.picks()[0]
        rates = {r["configuration"]: r["lr"] for r in rows if r["study"] == name}
        nearest = min(rates, key=lambda i: abs(math.log10(rates[i]) - place))
        assert top == nearest
        chosen.append(top)
    assert chosen[0] != chosen[1]


def test_a_configuration_is_dropped_from_all_folds_at_once():
    """The jackknife by hand: the mean of the folds' differences, without each configuration."""
    folds = [fold(2007, surface(gain=0.1)), fold(2010, surface(gain=0.0, sd=0.2))]
    ways = ways_of(comparison(), rows_of(folds), about(folds))
    found, _ = measured_of(comparison(), rows_of(folds), about(folds))
    n, k = 12, 4
    dropped = []
    for i in range(n):
        each = []
        for own in ways.values():
            losses = []
            for way in (own.first, own.rival):
                ranks = [j for j in way.ranked() if j != i]
                w = [math.comb(n - 1 - r, k - 1) for r in range(1, len(ranks) + 1)]
                means = [way.fresh_loss[way.ranked().index(j)].mean() for j in ranks]
                losses.append(np.average(means, weights=w))
            each.append(losses[1] - losses[0])
        dropped.append(np.mean(each))
    error = math.sqrt((n - 1) / n * np.square(np.array(dropped) - np.mean(dropped)).sum())
    assert (found.loss.high - found.loss.low) / 2 == pytest.approx(1.8595480375 * error)


def test_failures_are_counted_over_all_folds():
    folds = [fold(2007, surface(fails=0.6)), fold(2010, surface())]
    rows = rows_of(folds, "full32")
    found, _ = measured_of(comparison(), rows, about(folds))
    parts = [
        measure(own.first, own.rival, ("norm", "none"), MARGIN)
        for own in ways_of(comparison(), rows, about(folds)).values()
    ]
    effects = [part.failures.effect for part in parts]
    assert found.failures.effect == pytest.approx(sum(effects) / 2)
    assert found.failures.p == pytest.approx(min(1.0, 2 * min(p.failures.p for p in parts)))
    assert parts[1].failures.p == 1.0  # no failure: its runs were not extended
    assert found.levels["failures"][1][:2] == (
        sum(part.levels["failures"][1][0] for part in parts),
        129 + 33,
    )
    widths = [part.failures.effect - part.failures.low for part in parts]
    assert found.failures.effect - found.failures.low == pytest.approx(math.hypot(*widths) / 2)
    assert found.left_out == pytest.approx(sum(part.left_out for part in parts) / 2)


def test_a_fold_at_an_edge_is_named():
    narrow = Space(lr=Log(0.4, 10.0), threshold=Log(0.1, 10.0, open_high=True))
    folds = [fold(2007, surface()), fold(2010, surface(), space=narrow)]
    found, _ = measured_of(comparison(), rows_of(folds, "full32"), about(folds))
    assert found.edges
    assert {edge.split(",")[0] for edge in found.edges} == {"toy: 2010"}


def test_judge_takes_the_studies_of_the_folds():
    folds = [fold(year, surface(gain=0.3, sd=0.01)) for year in (2007, 2010, 2013)]
    verdict = judge(comparison(), rows_of(folds), folds)
    assert verdict.loss.effect == pytest.approx(0.3, abs=0.02)
    assert verdict.usable_unit == "decades of lr"


def test_a_fold_that_lacks_a_way_is_named():
    folds = [fold(2007), fold(2010)]
    rows = rows_of(folds)
    lacking = [r for r in rows if (r["study"], r["way"]) != ("toy: 2010", "norm")]
    verdict = judge(comparison(), lacking, folds)
    assert verdict.outcome is Outcome.NOT_RUN
    assert "'norm' in study 'toy: 2010'" in verdict.note


def test_folds_are_of_one_size():
    folds = [fold(2007), fold(2010)]
    rows = [*folds[0].run("small", 3), *folds[1].run("tiny", 3)]
    with pytest.raises(ValueError, match="unlike size"):
        ways_of(comparison(), rows, about(folds))


def test_a_fold_in_which_a_way_never_succeeds_leaves_no_loss():
    folds = [fold(2007), fold(2010, lost=0.1)]
    rows = rows_of(folds)
    ways = ways_of(comparison(), rows, about(folds))
    parts = {
        name: measure(own.first, own.rival, ("norm", "none"), MARGIN) for name, own in ways.items()
    }
    found = over_folds(parts, list(ways.values()), MARGIN)
    assert found.loss is None
    assert found.usable is None
    assert found.levels["loss"] == [None, None]


def test_the_noise_of_a_fold_is_that_of_the_mean_variance():
    quiet = Noise(0.3, (0.0, 0.1), 0.2, 0.5)
    loud = replace(quiet, sd=0.4, failures=(0.2, 0.1), chance=0.4)
    found = mean_noise([quiet, loud])
    assert found.sd == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert found.failures == pytest.approx((0.1, 0.1))
    assert (found.chance, found.near) == pytest.approx((0.3, 0.5))
    assert mean_noise([Noise(0.3)]) == Noise(0.3)
