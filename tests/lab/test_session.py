"""A session called from Python: what ``cliplab run`` does, without a command line."""

import json
import subprocess
import sys

import pytest

from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import How
from cliplab.lab.session import plan, run

CELL = """
from IPython.display import display
seeds = range(first_seed, first_seed + n_seeds)
if x == 3:
    raise ValueError("too large")
rows = [dict(arm=f"x={x}", seed=seed, loss=x * 1.0) for seed in seeds]
payload = dict(rows=rows, curves=[], choices={}, provenance={})
display({"application/vnd.cliplab.record+json": payload, "text/plain": "recorded"}, raw=True)
"""


CLAIM = """
[C1]
kind = "identity"
statement = "it runs"
notebook = "01_runs"
metric = "ran"
arms = ["x=1"]
source = "-"
"""


@pytest.fixture
def folder(tmp_path, make_notebook):
    """Where one notebook and its presets are."""
    path = make_notebook(tmp_path / "notebooks" / "01_runs.ipynb", CELL, parameters="x: int = 1")
    path.with_name("presets.toml").write_text("[01_runs.smoke]\nn_seeds = 1\n")
    return path.parent


def planned(folder, **options):
    return plan(
        notebooks=folder, results=folder.parent / "results", how=How(kernel="stock"), **options
    )


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, done: int, missing: int, lines: int) -> None:
        self.lines.append(f"{done} done, {missing} to run")


def test_a_session_plans_carries_out_judges_and_tells(folder, capfd):
    reports, lines = folder.parent / "reports", Lines()
    specs = planned(folder, grid={"x": [1, 2, 3]}, wanted={"x": [1, 3]}, seeds=range(4, 6))
    assert [spec.label for spec in specs] == [
        f"01_runs x={x} first_seed=4 n_seeds=2" for x in (1, 3)
    ]
    out = run(specs, jobs=2, notebooks=folder, reports=reports, display=lines)
    assert [(row["arm"], row["seed"]) for r in out.records for row in r.rows] == [
        ("x=1", 4),
        ("x=1", 5),
    ]
    assert [(f.spec, f.error, f.cell) for f in out.failures] == [
        (specs[1], "ValueError: too large", "3/3")
    ]
    assert lines.lines == ["0 done, 2 to run"]
    table = (specs[0].results / "index.csv").read_text().splitlines()
    assert sorted(line.split(",")[3] for line in table) == ["done", "failed", "state"]
    assert out.index == reports / "index.html"
    assert "too large" in out.index.read_text()
    assert out.verdicts == json.loads((reports / "claims.json").read_text()) == []
    assert capfd.readouterr() == ("", "")  # a program speaks for itself


def test_what_is_done_is_found_and_only_the_rest_is_carried_out(folder):
    (one,) = planned(folder)
    first = run([one], reports=None)
    assert first.index is None
    assert not (folder.parent / "reports").exists()
    stamp = one.record_path.stat()
    lines = Lines()
    both = planned(folder, grid={"x": [2, 1]})
    again = run(both, notebooks=folder, reports=folder.parent / "reports", display=lines)
    assert lines.lines == ["1 done, 1 to run"]
    assert [record.params["x"] for record in again.records] == [2, 1]
    assert again.records[1] == first.records[0]
    assert one.record_path.stat() == stamp


def test_an_executor_that_does_not_exist_is_refused_though_nothing_is_left_to_run(folder):
    specs = planned(folder)
    run(specs, reports=None)
    with pytest.raises(ValueError, match="executor 'dusk': expected local, dask, "):
        run(specs, executor="dusk", reports=None)


def test_a_finished_session_reads_each_record_once_and_starts_nothing(folder, monkeypatch):
    from cliplab.lab.runs.record import RunRecord

    specs = planned(folder, grid={"x": [1, 2]})
    run(specs, reports=None)
    read, load = [], RunRecord.load

    def counted(path):
        read.append(path)
        return load(path)

    monkeypatch.setattr(RunRecord, "load", counted)
    monkeypatch.setattr("cliplab.lab.session.open_executor", None)
    out = run(specs, notebooks=folder, reports=folder.parent / "reports")
    assert len(out.records) == 2
    assert read == [spec.record_path for spec in specs]


def test_a_finished_session_imports_nothing_heavy(folder):
    first = run(planned(folder), notebooks=folder, reports=folder.parent / "reports")
    assert first.index
    heavy = {"torch", "pandas", "scipy", "matplotlib", "papermill", "nbconvert", "distributed"}
    code = (
        "import sys\nfrom pathlib import Path\nfrom cliplab.lab.runs import device\n"
        "device._accelerator_possible = lambda: False\n"  # else torch is asked, as it must be
        "from cliplab.lab.batch.spec import How\n"
        "from cliplab.lab.session import plan, run\n"
        f"folder = Path({str(folder)!r})\n"
        "results, how = folder.parent / 'results', How(kernel='stock')\n"
        "specs = plan(notebooks=folder, results=results, how=how)\n"
        "out = run(specs, notebooks=folder, reports=folder.parent / 'reports')\n"
        f"print(len(out.records), out.index is not None, sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["1 True []"], done.stderr


def test_records_that_cannot_be_judged_together_are_kept_and_said(folder):
    (folder / "claims.toml").write_text(CLAIM)
    specs = [*planned(folder, seeds=range(2)), *planned(folder, seeds=range(1, 3))]
    out = run(specs, notebooks=folder, reports=folder.parent / "reports")
    assert len(out.records) == 2
    assert out.index is None
    assert out.refusal.startswith("cannot judge: 01_runs: seed 1 was run twice")


def test_nothing_starts_where_something_is_refused(folder):
    specs = planned(folder)
    with pytest.raises(ValueError, match="executor 'cloud': expected local"):
        run(specs, executor="cloud")
    (folder / "data.txt").write_text("in the way")
    with pytest.raises(ValueError, match="not a folder"):
        plan(notebooks=folder, results=folder / "data.txt")
    with pytest.raises(ValueError, match="unknown parameter 'y'"):
        planned(folder, params={"y": 1})
    assert not (folder.parent / "results").exists()
