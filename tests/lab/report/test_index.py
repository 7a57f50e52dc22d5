"""The index of a results folder: a line a run, whichever batch put it there."""

import csv
import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from recording import put

from cliplab.lab.batch.lock import locked
from cliplab.lab.batch.spec import RunSpec
from cliplab.lab.report import index
from cliplab.lab.report.index import write_index
from cliplab.lab.runs.record import RunRecord


def spec_of(record: RunRecord, results: Path) -> RunSpec:
    return RunSpec(
        notebook=Path("nb.ipynb"),
        name=record.notebook,
        preset=record.preset,
        params=record.params,
        key=record.key,
        code_key="c",
        results=results.resolve(),
        label=record.notebook,
    )


def lines(results: Path) -> list[dict[str, str]]:
    with (results / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_leads_from_parameters_to_the_executed_notebook(tmp_path):
    records = [put(tmp_path, "a", {"lr": lr, "same": 1, "key": None}) for lr in (0.1, 1e-7)]
    records.append(put(tmp_path, "sub/b", {"text": "x, y", "deep": {"z": [1]}}, preset="smoke"))
    write_index(tmp_path, [spec_of(r, tmp_path) for r in records], pytest.fail)
    found = lines(tmp_path)
    assert list(found[0]) == ["notebook", "preset", "key", "state", "executed", "lr", "parameters"]
    assert sorted(line["lr"] for line in found) == ["", "0.1", "1e-07"]
    for line in found:
        assert (tmp_path / line["executed"]).read_text() == "{}"
        assert (line["state"], len(line["key"])) == ("done", 16)
    assert json.loads(found[2]["parameters"]) == {"text": "x, y", "deep": {"z": [1]}}

    shutil.move(tmp_path / "index.csv", tmp_path / "kept.csv")  # all of it is in the folder
    write_index(tmp_path, [], pytest.fail)
    assert lines(tmp_path) == found


def test_it_is_right_after_the_folder_moved_and_runs_are_gone(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    records = [put(here, "a", {"lr": lr}) for lr in (1, 2, 3)]
    write_index(here, [spec_of(r, here) for r in records], pytest.fail)
    before = (here / "index.csv").read_bytes()
    here.rename(there)
    write_index(there, [], pytest.fail)
    assert (there / "index.csv").read_bytes() == before
    shutil.rmtree(next(there.glob("a/quick/*")))
    write_index(there, [], pytest.fail)
    assert len(lines(there)) == 2


def test_a_failed_run_keeps_its_parameters_in_later_batches(tmp_path):
    done, failed = put(tmp_path, "a", {"lr": 1}), put(tmp_path, "a", {"lr": 2})
    (failed.directory / "record.json").unlink()
    (failed.directory / "error.txt").write_text("why")
    begun = replace(spec_of(done, tmp_path), key="f" * 64)
    begun.directory.mkdir()
    specs = [spec_of(done, tmp_path), spec_of(failed, tmp_path), begun]
    write_index(tmp_path, specs, pytest.fail)
    for _ in range(2):
        assert {(line["lr"], line["state"]) for line in lines(tmp_path)} == {
            ("1", "done"),
            ("2", "failed"),
        }
        write_index(tmp_path, [], pytest.fail)


def test_long_parameters_are_read_again(tmp_path):
    record = put(tmp_path, "a", {"text": "x" * 200_000})
    write_index(tmp_path, [spec_of(record, tmp_path)], pytest.fail)
    write_index(tmp_path, [], pytest.fail)
    assert record.params == json.loads(lines(tmp_path)[0]["parameters"])


def test_a_run_known_from_the_index_is_not_read_again(tmp_path, monkeypatch):
    records = [put(tmp_path, "a", {"lr": lr}) for lr in (1, 2)]
    write_index(tmp_path, [spec_of(records[0], tmp_path)], pytest.fail)
    monkeypatch.setattr(index, "_recorded", pytest.fail)
    write_index(tmp_path, [], pytest.fail)
    assert {line["lr"] for line in lines(tmp_path)} == {"1", "2"}


@pytest.mark.parametrize(
    "content", [b"mine\n1\n", b"", b"\xff\xfe", b"notebook,preset,key,state\n"]
)
def test_a_file_of_the_users_own_is_kept_and_said(content, tmp_path):
    record = put(tmp_path, "a", {})
    (tmp_path / "index.csv").write_bytes(content)
    said = []
    write_index(tmp_path, [spec_of(record, tmp_path)], said.append)
    assert (tmp_path / "index.csv").read_bytes() == content
    assert len(said) == 1
    assert "no index of cliplab's" in said[0]


def test_a_damaged_record_has_its_line(tmp_path):
    record = put(tmp_path, "a", {"lr": 1})
    (record.directory / "record.json").write_text("[")
    write_index(tmp_path, [], pytest.fail)
    assert [line["parameters"] for line in lines(tmp_path)] == ["{}"]


def test_a_folder_that_is_held_or_gone_is_said_and_harms_nothing(tmp_path, monkeypatch):
    put(tmp_path, "a", {})
    monkeypatch.setattr(index, "PATIENCE_S", 0.1)
    said = []
    with locked(tmp_path):
        write_index(tmp_path, [], said.append)
    assert "another batch holds the folder" in said[0]
    (tmp_path / "file").write_text("")
    write_index(tmp_path / "file", [], said.append)
    assert len(said) == 2


def add(results: Path, batch: int) -> None:
    for n in range(10):
        record = put(results, "a", {"lr": 10 * batch + n})
        (record.directory / "record.json").unlink()  # what failed is in no other place
        (record.directory / "error.txt").write_text("")
        write_index(results, [spec_of(record, results)], pytest.fail)


def test_batches_at_a_time_lose_no_line(tmp_path):
    context = multiprocessing.get_context("fork")
    batches = [context.Process(target=add, args=(tmp_path, n)) for n in range(4)]
    for batch in batches:
        batch.start()
    for batch in batches:
        batch.join()
        assert batch.exitcode == 0
    assert sorted(int(line["lr"]) for line in lines(tmp_path)) == list(range(40))
