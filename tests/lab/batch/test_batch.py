import json
import re
import threading
from pathlib import Path

import psutil
import pytest
from waiting import is_gone, wait_until

from cliplab.lab.batch.batch import BatchResult, run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import How, RunError, RunSpec, find_done, load_finished
from cliplab.lab.batch.worker import run_one
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.notebook.presets import find_notebooks, read_presets
from cliplab.lab.notebook.values import Text
from cliplab.lab.runs.keys import digest
from cliplab.lab.session import run

RECORD = """
from cliplab.lab.runs import record
seeds = range(first_seed, first_seed + n_seeds)
"""
MEASURE = """
import os, torch
def measure(seed):
    torch.manual_seed(seed)
    return (torch.randn(300, 300) @ torch.randn(300, 300)).norm().item()
record(
    [{"arm": f"lr={lr}", "seed": s, "loss": lr * measure(s), "word": hash("word"),
      "threads": torch.get_num_threads(), "here": os.path.basename(os.getcwd())} for s in seeds],
    curves=[{"arm": f"lr={lr}", "seed": 0, "name": "loss", "x": [0, 1], "y": [1.0, None]}],
    choices={"lr": lr},
)
"""
FAIL = "print('so far')\nraise ValueError('too large')"
# Kills its worker the first time; the second time it succeeds.
KILL = """
import os, time
if not os.path.exists("killed"):
    with open("killed", "w") as file:
        file.write(str(os.getpid()))
    os.kill(int(os.environ["JPY_PARENT_PID"]), 9)
    time.sleep(3600)
record([{"arm": "a", "seed": 0}])
"""


@pytest.fixture
def folder(tmp_path, make_notebook) -> Path:
    parameters = "lr: float = 0.1  # step [> 0]\narms: list[str] = ['a']"
    path = make_notebook(tmp_path / "nb" / "01_good.ipynb", RECORD, MEASURE, parameters=parameters)
    presets = (
        '[01_good.smoke]\nn_seeds = 1\n[01_good.bad]\nlr = "1e-3"\n[01_good.typo]\nlrate = 1.0'
    )
    path.with_name("presets.toml").write_text(presets)
    return path.parent


def plan_good(folder: Path, preset: str = "quick", **options) -> list[RunSpec]:
    return plan([folder / "01_good.ipynb"], preset, folder.parent / "results", **options)


def test_parameters_overlay_defaults_preset_options_grid_and_seeds(folder):
    (spec,) = plan_good(folder, "smoke")
    assert spec.params == {"lr": 0.1, "arms": ["a"], "first_seed": 0, "n_seeds": 1}
    assert spec.directory.relative_to(folder.parent).parts[:-1] == ("results", "01_good", "smoke")
    assert spec.key.startswith(spec.directory.name)

    grid = {"lr": [Text("1"), 5], "arms": [["a"], ["a", "b"]]}
    specs = plan_good(
        folder, "smoke", params={"lr": 3}, grid=grid, seeds=range(4, 9), split_seeds=2
    )
    assert [(s.params["lr"], len(s.params["arms"])) for s in specs[::3]] == [
        (1.0, 1),
        (1.0, 2),
        (5.0, 1),
        (5.0, 2),
    ]
    chunks = [(s.params["first_seed"], s.params["n_seeds"]) for s in specs[:3]]
    assert chunks == [(4, 2), (6, 2), (8, 1)]
    assert len({spec.key for spec in specs}) == len({spec.label for spec in specs}) == 12
    assert [s.params["n_seeds"] for s in plan_good(folder, split_seeds=1)] == [1, 1]


def test_equal_parameters_have_equal_keys_however_they_were_given(folder):
    (one,) = plan_good(folder, params={"lr": Text("1e-1")}, how=How(budget_s=1))
    assert one.key == plan_good(folder)[0].key
    assert plan_good(folder, params={"lr": 0.2})[0].key != one.key


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"preset": "none"}, "no preset 'none', only quick, smoke, bad, typo"),
        ({"preset": "bad"}, "without quotes"),
        ({"preset": "typo"}, "unknown parameter 'lrate'"),
        ({"params": {"lrate": 1}}, "unknown parameter 'lrate'; declared: lr, arms"),
        ({"grid": {"lr": [1, 1.0]}}, "grid lr: expected distinct values"),
        ({"grid": {"lr": []}}, "grid lr: expected distinct values"),
        ({"grid": {"lr": [1, -1]}}, "violates its bound"),
    ],
)
def test_a_bad_plan_is_refused_and_names_the_notebook(options, complaint, folder):
    with pytest.raises(ValueError, match=r"^01_good") as caught:
        plan_good(folder, **options)
    assert complaint in str(caught.value)
    assert not (folder.parent / "results").exists()


def test_notebooks_are_found_by_stem_prefix_and_path(folder, make_notebook):
    one, two = folder / "01_good.ipynb", make_notebook(folder / "02_good.ipynb")
    assert find_notebooks([], folder) == [one, two]
    assert find_notebooks(["02", "01_good", str(two)], folder) == [two, one]
    for name, complaint in [
        ("0", "'0' matches 2 notebooks: 01_good, 02_good"),
        ("x", "'x' matches no notebook: 01_good, 02_good"),
        ("x.ipynb", "no notebook x.ipynb"),
    ]:
        with pytest.raises(ValueError, match="notebook") as caught:
            find_notebooks([name], folder)
        assert complaint in str(caught.value)
    with pytest.raises(ValueError, match="no notebooks in"):
        find_notebooks([], folder / "none")


def test_broken_presets_are_named(folder):
    (folder / "presets.toml").write_text("[")
    with pytest.raises(ValueError, match=r"presets\.toml: "):
        read_presets(folder / "01_good.ipynb")


@pytest.fixture
def notebooks(folder, make_notebook) -> list[Path]:
    make_notebook(folder / "02_fail.ipynb", FAIL)
    make_notebook(folder / "03_kill.ipynb", RECORD, KILL)
    make_notebook(folder / "04_slow.ipynb", "import time; time.sleep(3600)")
    make_notebook(
        folder / "05_twice.ipynb", RECORD, "for s in seeds: record([{'arm': 'a', 'seed': s}])"
    )
    make_notebook(folder / "06_never.ipynb", "x = 1")
    return find_notebooks([], folder)


class Events(Silent):
    """A progress display that remembers what it was told."""

    def __init__(self) -> None:
        self.retries: list[tuple[str, str]] = []
        self.ends: list[tuple[str, bool]] = []

    def refresh(self, running) -> None:
        assert len(running) <= 2

    def retried(self, spec, error) -> None:
        self.retries.append((spec.notebook.stem, error))

    def elsewhere(self, spec) -> None:
        raise AssertionError("there is no other batch")

    def finished(self, spec, failed) -> None:
        self.ends.append((spec.notebook.stem, not failed))


@pytest.mark.slow
def test_failures_are_kept_and_stop_nothing_and_deaths_are_tried_again(notebooks, tmp_path):
    results, events = tmp_path / "results", Events()
    good, *others = notebooks
    slow = good.with_name("04_slow.ipynb")
    specs = [
        *plan([good], "quick", results, grid={"lr": [1, 2]}),
        *plan([path for path in others if path != slow], "quick", results),
        *plan([slow], "quick", results, how=How(budget_s=5)),
    ]
    with LocalExecutor(2) as executor:
        result = run_batch(specs, executor, events)

    assert [r.notebook for r in result.records] == ["01_good", "01_good", "03_kill", "06_never"]
    died = "the worker process died: killed, or out of memory"
    errors = {failure.spec.notebook.stem: failure.error for failure in result.failures}
    assert errors == {
        "02_fail": "ValueError: too large",
        "04_slow": "over its budget of 0.0833 minutes",
        "05_twice": "record(rows) must be called once in the notebook, not 2 times",
    }
    assert events.retries == [("03_kill", died)]
    assert len(events.ends) == len(specs)
    for failure in result.failures:
        folder = failure.spec.directory
        assert files(failure.spec) == [".lock", "error.txt", "notebook.ipynb"]
        assert (folder / "error.txt").read_text().splitlines()[-1] == failure.error
    failed = result.failures[0].spec.directory
    assert "so far" in (failed / "notebook.ipynb").read_text()
    assert "raise ValueError('too large')" in (failed / "error.txt").read_text()
    wait_until(lambda: is_gone(int((good.parent / "killed").read_text())))

    check_records(result, specs)
    check_jobs_do_not_matter(result, specs[0])


def check_records(result: BatchResult, specs: list[RunSpec]) -> None:
    one, two = result.records[:2]
    assert one.params["lr"] == 1.0
    assert two.rows[0]["loss"] == 2 * one.rows[0]["loss"]
    assert [row["seed"] for row in one.rows] == [0, 1]
    assert {row["threads"] for row in one.rows} == {1}
    assert one.rows[0]["here"] == "nb"
    assert one.curves[0]["y"] == [1.0, None]
    assert one.choices == {"lr": 1.0}
    assert one.provenance["threads"] == {"torch": 1, "omp": "1"}
    assert one.provenance["seeds"] == [0, 2]
    assert 0 < one.provenance["cpu_s"] < 60
    assert one.provenance["peak_memory_mb"] > 50
    assert load_finished(specs[0]) == one
    assert files(specs[0]) == [".lock", "notebook.ipynb", "record.json"]


def files(spec: RunSpec) -> list[str]:
    return sorted(path.name for path in spec.directory.iterdir())


def check_jobs_do_not_matter(result: BatchResult, spec: RunSpec) -> None:
    """Two batches at once on one run, each with one worker, give the numbers of the first."""
    spec.record_path.rename(spec.directory / ".record.json.123.0a1b2c3d")  # killed while writing
    again: list[BatchResult] = []

    def batch() -> None:
        with LocalExecutor(1) as executor:
            again.append(run_batch([spec], executor))

    threads = [threading.Thread(target=batch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = result.records[0]
    for now in [*(b.records[0] for b in again), load_finished(spec)]:
        assert (now.key, now.rows, now.curves) == (before.key, before.rows, before.curves)
    assert files(spec) == [".lock", "notebook.ipynb", "record.json"]


def test_what_is_done_is_not_run_again_and_what_is_damaged_is_set_aside(folder, tmp_path):
    one, two = plan_good(folder, grid={"lr": [1, 2]})
    for spec in (one, two):
        write_record(spec)
    assert run_one(one).rows == [{"arm": "a", "seed": 0}]
    processes = set(psutil.Process().children(recursive=True))
    assert list(find_done([one, two])[0]) == [one.directory, two.directory]
    assert len(run([one, two], notebooks=folder, reports=tmp_path / "reports").records) == 2
    one.record_path.write_text(two.record_path.read_text())  # whole, but of another run
    done, (why,) = find_done([one, two])
    assert list(done) == [two.directory]
    assert re.match(r"corrupt record .*: its key is", why)
    assert processes.issuperset(psutil.Process().children(recursive=True))
    assert run_one(one).key == load_finished(one).key == one.key
    aside = one.directory / "record.json.damaged"
    assert aside.read_text() == two.record_path.read_text()


def write_record(spec: RunSpec) -> None:
    from cliplab.lab.runs.record import RunRecord

    rows = [{"arm": "a", "seed": 0}]
    RunRecord(
        spec.name,
        spec.preset,
        spec.params,
        spec.key,
        spec.code_key,
        rows,
        [],
        {},
        {},
        spec.directory,
    ).write(spec.record_path)


def test_code_that_changed_after_planning_is_not_run_under_the_old_key(folder, tmp_path):
    (spec,) = plan_good(folder)
    notebook = json.loads(spec.notebook.read_text())
    notebook["cells"][-1]["source"] = "changed = 1"
    spec.notebook.write_text(json.dumps(notebook))
    with pytest.raises(RuntimeError, match="changed after the batch was planned"):
        run_one(spec)
    assert not spec.record_path.exists()


def test_numbers_of_another_environment_are_refused(folder, monkeypatch):
    (spec,) = plan_good(folder, how=How(kernel="stock"))
    monkeypatch.setattr(
        "cliplab.lab.batch.plan.run_key",
        lambda code, params, env: digest([code, params, env | {"device": "cuda"}]),
    )
    (elsewhere,) = plan_good(folder, how=How(kernel="stock"))
    with pytest.raises(RunError, match=r"another environment .*device cpu, python 3") as caught:
        run_one(elsewhere)
    assert not caught.value.retry
    assert not elsewhere.record_path.exists()
    assert run_one(spec).key == spec.key


def test_a_failed_second_attempt_leaves_the_finished_run_as_it_is(folder):
    (spec,) = plan_good(folder, how=How(kernel="stock"))
    before = run_one(spec)
    notebook = (spec.directory / "notebook.ipynb").read_bytes()
    (again,) = plan_good(folder, how=How(kernel="stock", budget_s=0.01), force=True)
    assert load_finished(again) is None
    with pytest.raises(RunError, match="over its budget"):
        run_one(again)
    assert load_finished(spec) == before
    assert (spec.directory / "notebook.ipynb").read_bytes() == notebook
    assert "over its budget" in (spec.directory / "error.txt").read_text()
