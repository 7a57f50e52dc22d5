"""Which failures are tried again, and what a failure stops; without kernels."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cliplab.lab.batch.batch import BatchResult, run_batch
from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import How, RunError, RunSpec
from cliplab.lab.runs.record import RunRecord

DIED = RunError("the kernel died", died=True)
RAISED = RunError("ValueError: too large")
NEVER = RunError("over its budget", retry=False)
DISK = OSError("no space")


def run_spec(folder: Path, name: str, **how) -> RunSpec:
    return RunSpec(folder / "01.ipynb", "01", "quick", {}, name, "", folder, name, How(**how))


def record_of(spec: RunSpec, **provenance) -> RunRecord:
    return RunRecord("01", "quick", {}, spec.key, "", [], [], {}, provenance, spec.directory)


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def carry_out(monkeypatch, specs, attempt, **options) -> BatchResult:
    monkeypatch.setattr("cliplab.lab.batch.batch.run_one", attempt)
    with ThreadPoolExecutor(1) as executor:
        return run_batch(specs, executor, **options)


@pytest.mark.parametrize(
    ("retries", "errors", "attempts"),
    [
        (None, [DIED, DIED, DIED], 2),
        (None, [DIED], 2),
        (None, [RAISED], 1),
        (None, [DISK], 1),
        (None, [DIED, RAISED], 2),
        (0, [DIED], 1),
        (2, [RAISED, DIED, DISK, RAISED], 3),
        (5, [NEVER], 1),
        (5, [RAISED, NEVER], 2),
    ],
)
def test_a_death_is_tried_again_once_an_exception_not_or_both_as_asked(
    retries, errors, attempts, tmp_path, monkeypatch
):
    spec, made = run_spec(tmp_path, "a", retries=retries), []

    def attempt(spec: RunSpec) -> RunRecord:
        made.append(spec)
        if len(made) <= len(errors):
            raise errors[len(made) - 1]
        return record_of(spec)

    result = carry_out(monkeypatch, [spec], attempt)
    assert len(made) == attempts
    ended_well = attempts > len(errors)
    assert [f.error for f in result.failures] == ([] if ended_well else [str(errors[attempts - 1])])


def test_nothing_starts_after_the_first_failure_where_that_is_asked(tmp_path, monkeypatch):
    specs, ran = [run_spec(tmp_path, name) for name in "abcd"], []

    def attempt(spec: RunSpec) -> RunRecord:
        ran.append(spec.label)
        if spec.label == "b":
            raise RAISED
        return record_of(spec)

    result = carry_out(monkeypatch, specs, attempt, stop_on_failure=True)
    assert ran == ["a", "b"]
    assert [record.key for record in result.records] == ["a"]
    assert [failure.spec.label for failure in result.failures] == ["b"]
    assert [spec.label for spec in result.left] == ["c", "d"]
    assert carry_out(monkeypatch, specs, attempt).left == []


def test_a_death_that_is_tried_again_is_no_failure_that_stops(tmp_path, monkeypatch):
    specs, ran = [run_spec(tmp_path, name) for name in "ab"], []

    def attempt(spec: RunSpec) -> RunRecord:
        ran.append(spec.label)
        if ran == ["a"]:
            raise DIED
        return record_of(spec)

    result = carry_out(monkeypatch, specs, attempt, stop_on_failure=True)
    assert sorted(ran) == ["a", "a", "b"]
    assert (len(result.records), result.failures, result.left) == (2, [], [])


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["a.csv", "b.csv", "c.csv", "d.csv"], "a.csv, b.csv, c.csv, d.csv"),
        (["a.csv", "b.csv", "c.csv", "d.csv", "e.csv"], "a.csv, b.csv, c.csv and 2 more"),
    ],
)
def test_what_a_notebook_reads_beyond_its_key_is_said_once(files, told, tmp_path, monkeypatch):
    specs, lines = [run_spec(tmp_path, name) for name in "ab"], Lines()
    carry_out(
        monkeypatch,
        specs,
        lambda spec: record_of(spec, undeclared=files),
        progress=lines,
    )
    assert lines.lines == [
        f"warning: 01 reads {told}, which metadata.cliplab.reads (or ignores) does not name: "
        "after a change there, its result still counts as done"
    ]
