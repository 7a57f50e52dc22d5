"""What a study found of a way, read back from its rows."""

from itertools import groupby

import numpy as np
import pytest
from studying import on_csv, study, surface

from cliplab.lab.study import SIZES
from cliplab.lab.study.results import way_runs

FULL = SIZES["full"]


@pytest.fixture(scope="module")
def rows():
    return study(surface(fails=0.15)).run("full", 2)


def arrays(rows, way, of=None):
    found = way_runs(rows, "toy", way, FULL, of=of)
    names = ("screened_score", "screened_loss", "fresh_score", "fresh_loss", "pick_loss")
    return found, [getattr(found, name) for name in names]


@pytest.mark.parametrize(("way", "of"), [("norm", None), ("none", None), ("none, early", "none")])
def test_rows_in_any_order_and_from_a_file_are_the_same_runs(rows, way, of):
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    _, wanted = arrays(rows, way, of)
    for other in (shuffled, on_csv(rows), [*on_csv(shuffled), {"arm": "demo", "seed": 1}]):
        for a, b in zip(wanted, arrays(other, way, of)[1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_failed_runs_have_no_loss_and_the_score_of_chance(rows):
    found, _ = arrays(rows, "none")
    failed = np.isnan(found.screened_loss)
    assert 0.02 < failed.mean() < 0.4
    assert (found.screened_score[failed] == 4.0).all()
    assert found.failed.shape == (3, 43)
    assert found.failed.sum() == sum(
        row["failed"] for row in rows if (row["way"], row["stage"]) == ("none", "failures")
    )
    assert not arrays(rows, "norm")[0].failed.any()


def test_finalists_are_ranked_by_screening_and_picks_by_all_that_was_run(rows):
    found, _ = arrays(rows, "norm")
    means = found.screened_score.mean(1)
    assert found.ranked() == list(np.argsort(means, kind="stable")[:6])
    own = [r for r in rows if r["way"] == "norm" and r["stage"] in ("screening", "finalists")]
    own.sort(key=lambda row: row["configuration"])
    scores = {
        i: [row["score"] for row in group]
        for i, group in groupby(own, lambda row: row["configuration"])
    }
    all_of = {i: np.mean(scores[i]) for i in found.ranked()}
    assert found.picks() == sorted(all_of, key=all_of.get)[:3]


def test_a_handicap_is_ranked_by_itself_and_has_no_failures_stage(rows):
    found, _ = arrays(rows, "none, early", of="none")
    assert found.pick_loss.size == 0
    full, _ = arrays(rows, "none")
    alive = ~np.isnan(found.screened_loss)  # what fails later failed, or stood at chance, before
    assert (~np.isnan(full.screened_loss))[alive].all()
    np.testing.assert_allclose(found.screened_loss[alive], full.screened_loss[alive] + 0.2)


def test_a_study_that_is_under_way_has_the_stages_so_far(rows):
    screened = [row for row in rows if row["stage"] == "screening"]
    assert arrays(screened, "norm")[0].fresh_loss.size == 0
    finalists = [row for row in rows if row["stage"] != "failures"]
    assert arrays(finalists, "norm")[0].fresh_loss.shape == (6, 12)
    assert arrays(finalists, "norm")[0].pick_loss.size == 0


@pytest.mark.parametrize("stage", ["screening", "finalists", "failures"])
def test_a_run_that_is_missing_or_there_twice_is_refused(rows, stage):
    own = next(i for i, r in enumerate(rows) if (r["way"], r["stage"]) == ("norm", stage))
    with pytest.raises(ValueError, match="toy: norm"):
        arrays(rows[:own] + rows[own + 1 :], "norm")
    with pytest.raises(ValueError, match="toy: norm"):
        arrays([*rows, rows[own]], "norm")
    other = next(
        i for i, r in enumerate(rows)
        if i > own and all(r[k] == rows[own][k] for k in ("way", "stage", "configuration"))
    )  # fmt: skip
    twice = [*rows[:own], rows[other], *rows[own + 1 :]]
    with pytest.raises(ValueError, match="a configuration has a seed twice"):
        arrays(twice, "norm")


def test_no_runs_of_a_way_are_refused_by_name(rows):
    with pytest.raises(ValueError, match="toy: value, screening: 0 runs of a configuration"):
        arrays(rows, "value")
