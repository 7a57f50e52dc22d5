"""The regret of thresholds that are not tuned, on surfaces whose truth is known."""

import math

import numpy as np
import pytest
from publishing import publish
from studying import CHANCE, MARGIN, study

from cliplab.lab.across.tasks import read_tasks
from cliplab.lab.across.thresholds import recipe_thresholds, regret, regret_near, regret_of_recipe


def train(configurations, seeds):
    """Only the threshold matters: 1 is best; norms are log-normal, and ten times the rate."""
    rows = []
    for c in configurations:
        c_is = 10.0 if c["threshold"] is None else c["threshold"]
        loss = 2 + MARGIN * 4 * abs(math.log10(c_is))
        rows.append(
            {
                "val_loss": loss,
                "test_loss": loss,
                "early_val_loss": loss,
                "early_test_loss": loss,
                "diverged": False,
                "norm_median": 10 * c["lr"],
                "norm_p99": 10 * c["lr"] * math.exp(2.3263),
            }
        )
    return rows


@pytest.fixture
def task(tmp_path):
    publish(tmp_path, studies=[study(train)], size="full32")
    return read_tasks(tmp_path)[0][0]


def test_a_good_threshold_costs_nothing_and_a_bad_one_what_it_is_behind(task):
    good, bad = (regret_near(task, c, 4, 2.0) for c in (1.0, 5.0))
    assert good.effect == pytest.approx(0, abs=0.3)
    assert 1.4 < bad.effect < 3  # of 2.5 to 10 the lowest is best
    assert max(bad.n, good.n) < 32
    assert bad.error < 1


def test_not_clipping_and_any_threshold(task):
    assert regret(task, "none", 4).effect == pytest.approx(4, abs=0.4)  # behind the best drawn
    assert 0 < regret(task, "norm", 4).effect < 2
    assert regret(task, "norm", 4).n == 32


def test_too_few_are_near_a_threshold_out_of_the_space(task):
    assert regret_near(task, 1000.0, 4, 2.0) is None
    assert regret_near(task, 1.0, 16, 2.0) is None


def test_the_recipe_reads_the_norms_at_a_tenth_of_the_rate(task):
    [fold] = task.folds
    rates = [r["lr"] for r in fold.rows["norm"] if r["stage"] == "screening"][::2]
    found = recipe_thresholds(fold, "norm")
    above = np.array(rates) > 0.2  # a tenth of the others lies below the space
    assert above.sum() > 10
    ratio = found[above] / (np.array(rates)[above] * math.exp(1.2816))
    assert (ratio > 0.6).all()
    assert (ratio < 1.7).all()
    assert regret_of_recipe(task, 4, 2.0) is not None


def test_a_failed_run_scores_chance(tmp_path):
    def failing(configurations, seeds):
        gone = {"val_loss": CHANCE, "test_loss": CHANCE, "diverged": True}
        rows = train(configurations, seeds)
        return [r | gone if s % 2 else r for r, s in zip(rows, seeds, strict=True)]

    publish(tmp_path, studies=[study(failing)], size="full32")
    toy = read_tasks(tmp_path)[0][0]
    assert regret(toy, "norm", 4).effect > 0.4 * (CHANCE - 2) / MARGIN
