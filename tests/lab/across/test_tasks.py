"""The tasks of a folder of records: which are there, which are left out, and why."""

from dataclasses import replace

import pytest
from publishing import NAME, publish
from studying import comparison, study, surface

from cliplab.lab.across.tasks import NONE, read_tasks
from cliplab.lab.runs.csvrows import write_rows


def test_a_study_of_a_registered_comparison_is_a_task(tmp_path):
    rows = publish(tmp_path, comparison(question="Does it help an LSTM (plain SGD)?"))
    [task], left_out = read_tasks(tmp_path)
    assert left_out == {}
    assert (task.name, task.clipped, task.ways) == ("01 toy", "norm", [NONE, "norm"])
    assert (task.model, task.optimizer, task.claims) == ("LSTM", "SGD", ("toy_norm",))
    assert task.has_none
    [fold] = task.folds
    screened = [r for r in rows if r["way"] == "norm" and r["stage"] == "screening"]
    assert fold.runs["norm"].screened_score.size == len(screened)
    assert fold.rows["norm"][0]["threshold"] is not None


def test_a_registration_without_rows_waits(tmp_path):
    publish(tmp_path)
    (tmp_path / f"{NAME}.csv").unlink()
    assert read_tasks(tmp_path) == ([], {NAME: "not measured yet"})


@pytest.mark.parametrize("column", ["study", "way"])
def test_rows_of_another_design_wait(tmp_path, column):
    rows = [{"arm": "a", "seed": 3000, "loss": 1.0, "study": None}]
    if column == "way":
        rows = [row for row in publish(tmp_path) if row["way"] != "norm"]
    publish(tmp_path)
    (tmp_path / f"{NAME}.csv").write_text(write_rows(rows))
    tasks, left_out = read_tasks(tmp_path)
    assert tasks == []
    assert left_out == {
        f"{NAME}, toy": "not measured yet" if column == "study" else "no rows of norm"
    }


def test_rows_of_another_registration_are_left_out(tmp_path):
    publish(tmp_path)
    before = (tmp_path / f"{NAME}.csv").read_text()
    publish(tmp_path, comparison(margin=0.06))
    assert len(read_tasks(tmp_path)[0]) == 1
    (tmp_path / f"{NAME}.csv").write_text(before)
    assert read_tasks(tmp_path) == (
        [],
        {f"{NAME}, toy": "its rows are not those of its registration"},
    )


def test_a_registration_that_was_changed_counts_for_nothing(tmp_path):
    publish(tmp_path, notebook="02_other")
    assert read_tasks(tmp_path) == ([], {NAME: "its registration was changed"})


def test_a_withdrawn_comparison_is_left_out(tmp_path):
    publish(tmp_path)
    assert len(read_tasks(tmp_path, {"toy_norm"})[0]) == 1
    assert read_tasks(tmp_path, {"another"}) == ([], {})


def test_notebooks_that_are_not_asked_for_are_not_opened(tmp_path):
    publish(tmp_path)
    (tmp_path / "02_broken.registration.json").write_text("{")
    assert len(read_tasks(tmp_path, only={NAME})[0]) == 1


def test_folds_are_one_task_and_a_control_is_no_way(tmp_path):
    folds = [study(surface(gain=0.1)) for _ in range(2)]
    for year, one in zip((2007, 2010), folds, strict=True):
        one.name, one.handicaps = f"toy: {year}", {}
        one.ways = {**one.ways, "late": ["lr"]}
    publish(tmp_path, comparison(control="late"), studies=folds)
    [task], _ = read_tasks(tmp_path)
    assert len(task.folds) == 2
    assert task.ways == [NONE, "norm"]


def test_the_way_that_stands_for_clipping(tmp_path):
    ways = {"none": ["lr"], "average": ["lr"], "fixed": ["lr", "threshold"]}
    toy = study(surface(gain=0.1), ways=ways, versus=[("average", "fixed")])
    claim = comparison(id="rule", first="average", rival="fixed", control="none, early")
    publish(tmp_path, claim, studies=[toy])
    assert read_tasks(tmp_path)[0][0].clipped == "fixed"  # of those compared, it has a threshold
    against = replace(claim, id="at_all", rival="none", margin=0.01)
    publish(tmp_path, claim, against, studies=[toy])
    [task], _ = read_tasks(tmp_path)
    assert (task.clipped, task.margin, task.claims) == ("average", 0.01, ("rule", "at_all"))
