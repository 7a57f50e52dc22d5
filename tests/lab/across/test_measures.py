"""What is measured of a task's ways, on surfaces whose truth is known."""

import math

import numpy as np
import pytest
from publishing import publish
from studying import comparison, study, surface

from cliplab.lab.across.measures import drawn, measures, tuned
from cliplab.lab.across.tasks import read_tasks


def columns(train, seen):
    """The same training, with what a clipper would have counted."""

    def told(configurations, seeds):
        rows = train(configurations, seeds)
        for row, c in zip(rows, configurations, strict=True):
            clips = c["way"] != "none"
            row |= {"clip_fraction": 0.5 * clips, "factor_mean": 1 - 0.25 * clips}
            row |= {"norm_median": 1.0, "norm_p99": 4.0, "norm_max": 8.0} | seen
        return rows

    return told


@pytest.fixture
def task(tmp_path):
    def made(train, claim=None, **changes):
        publish(tmp_path, claim or comparison(), studies=[study(train, **changes)], size="small")
        return read_tasks(tmp_path)[0][0]

    return made


def test_each_way_has_a_row_and_what_it_gains(task):
    rows = {r["way"]: r for r in measures(task(columns(surface(gain=0.2, sd=0.001), {})))}
    assert rows.keys() == {"none", "norm"}
    norm, none = rows["norm"], rows["none"]
    assert norm["gain"] == pytest.approx(0.2, abs=0.01)
    assert norm["gain"] == pytest.approx(none["loss"] - norm["loss"])
    assert norm["gain_low"] <= norm["gain"] <= norm["gain_high"]
    assert norm["wider"] == pytest.approx(norm["usable"] - none["usable"])
    assert (norm["clip_fraction"], norm["factor_mean"]) == (0.5, 0.75)
    assert (none["clip_fraction"], none["factor_mean"]) == (0, 1)
    assert norm["norm_tail"] == pytest.approx(4)
    assert norm["norm_peak"] == pytest.approx(8)
    assert norm["spike_score"] is None
    assert "gain" not in none


def test_a_spike_score_is_told_where_rows_hold_one(task):
    rows = measures(task(columns(surface(gain=0.2), {"spike_score": 0.25})))
    assert [row["spike_score"] for row in rows] == [0.25, 0.25]


def test_a_way_whose_rows_never_say_that_they_clip_says_nothing_of_it(task):
    rows = {r["way"]: r for r in measures(task(surface(gain=0.2)))}
    assert rows["norm"]["clip_fraction"] is rows["norm"]["factor_mean"] is None


def test_failures_are_counted_and_infinitely_far_behind(task):
    toy = task(surface(gain=0.2, sd=0.001, fails=0.5))
    rows = {r["way"]: r for r in measures(toy)}
    assert rows["norm"]["failures"] == 0 < rows["none"]["failures"]
    assert rows["norm"]["fewer"] > 0
    behind = tuned(toy, "none")
    assert len(behind) == rows["none"]["runs"]
    assert np.isinf(behind).sum() == rows["none"]["failures"]
    assert np.median(tuned(toy, "norm")) == pytest.approx(0, abs=1)
    assert len(drawn(toy, "norm")) == 12
    assert np.median(drawn(toy, "norm")) > 1


def test_without_unclipped_runs_there_is_nothing_to_gain(task):
    ways = {"norm": ["lr", "threshold"], "value": ["lr"]}
    claim = comparison(rival="value", control="value, early")
    changes = {"ways": ways, "handicaps": {"value, early": "value"}, "versus": [("norm", "value")]}
    toy = task(surface(gain=0.2), claim, **changes)
    assert not toy.has_none
    for row in measures(toy):
        assert "gain" not in row
        assert math.isfinite(row["loss"])


def test_folds_are_averaged(tmp_path):
    folds = [study(surface(gain=gain, sd=0.001)) for gain in (0.1, 0.3)]
    for year, one in zip((2007, 2010), folds, strict=True):
        one.name = f"toy: {year}"
    publish(tmp_path, studies=folds, size="small")
    toy = read_tasks(tmp_path)[0][0]
    rows = {r["way"]: r for r in measures(toy)}
    assert rows["norm"]["gain"] == pytest.approx(0.2, abs=0.01)
    assert len(tuned(toy, "norm")) == 2 * 3 * 4
