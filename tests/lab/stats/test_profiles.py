"""Performance profiles: shares, the weight of tasks, and their intervals."""

import numpy as np
import pytest

from cliplab.lab.stats.profiles import profile


def test_every_task_has_the_same_weight_and_a_failure_is_never_within():
    found = profile([[0.0] * 9 + [np.inf], [2.0]], [-1, 0, 1, 2, 1e9])
    assert found.share.tolist() == pytest.approx([0, 0.45, 0.45, 0.95, 0.95])
    assert (found.low <= found.share + 1e-12).all()
    assert (found.high >= found.share - 1e-12).all()


def test_the_band_is_that_of_a_share():
    runs = np.arange(100) / 100
    found = profile([runs, runs], [0.5], reps=4000)
    half = 1.645 * np.sqrt(0.25 / 200)
    assert (found.low[0], found.high[0]) == pytest.approx((0.51 - half, 0.51 + half), abs=0.01)


def test_the_same_seed_gives_the_same_band():
    one, again, other = (profile([[0.0, 1, 2, 3]], [1], reps=50, seed=s) for s in (1, 1, 2))
    assert one.low == again.low
    assert len({one.low[0], one.high[0], other.low[0], other.high[0]}) > 1


@pytest.mark.parametrize("tasks", [[], [[]], [[np.nan]], [[[1.0]]]])
def test_what_is_no_task_is_refused(tasks):
    with pytest.raises(ValueError, match="vectors of numbers"):
        profile(tasks, [0.0])
