import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.provenance import provenance
from cliplab.lab.runs.record import MIME, RunRecord, union_rows
from cliplab.lab.runs.tidy import record, tidy_curves, tidy_rows

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)


def a_record(directory: Path, rows: list[dict] | None = None) -> RunRecord:
    rows = rows or [{"arm": "a", "seed": 0, "loss": 0.1 + 0.2}]
    params = {"lr": 0.1, "first_seed": 0, "n_seeds": 1}
    return RunRecord("01_x", "quick", params, "k", "c", rows, [], {}, {}, directory)


def test_scalars_of_other_libraries_become_python():
    row = {
        "arm": "a",
        "seed": np.int64(3),
        "loss": torch.tensor(0.5),
        "ok": np.bool_(True),
        "c": None,
    }
    assert tidy_rows([row]) == [{"arm": "a", "seed": 3, "loss": 0.5, "ok": True, "c": None}]
    assert {type(v) for v in tidy_rows([row])[0].values()} == {str, int, float, bool, type(None)}
    frame = pd.DataFrame({"arm": ["a", "b"], "seed": [0, 0], "loss": [1.0, 2.0]})
    assert tidy_rows(frame)[1] == {"arm": "b", "seed": 0, "loss": 2.0}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "no rows"),
        ("abc", "expected a list of dicts"),
        ([{"seed": 0}], "arm None, seed 0: arm must be text"),
        ([{"arm": "a", "seed": 0.5}], "seed must be an int"),
        ([{"arm": "a", "seed": 1, "loss": math.inf}], "arm 'a', seed 1: loss = inf is not finite"),
        ([{"arm": "a", "seed": 1, "loss": [1]}], "loss = [1] is not a number"),
        ([{"arm": "a", "seed": 1}, {"arm": "a", "seed": 1}], "('a', 1) is there twice"),
        (pd.DataFrame({"arm": ["a"], "seed": [0], "c": [math.nan]}), "pass a list of dicts"),
    ],
)
def test_untidy_rows_are_refused(rows, complaint):
    with pytest.raises(ValueError, match="record: ") as caught:
        tidy_rows(rows)
    assert complaint in str(caught.value)


def test_curves():
    curve = {"arm": "a", "seed": 0, "name": "loss", "x": range(2), "y": torch.ones(2)}
    assert tidy_curves([curve | {"x": np.arange(2)}])[0]["y"] == [1.0, 1.0]
    assert tidy_curves([curve | {"x": [0, 1], "y": [None, 2.0]}])[0]["y"] == [None, 2.0]
    for change, complaint in [
        ({"x": [0]}, "as long as"),
        ({"x": [0, math.nan]}, "nan is not a finite"),
        ({"x": [0, 1], "y": [0.0, "b"]}, "'b' is not a finite"),
        ({"name": 3}, "needs a name"),
    ]:
        with pytest.raises(ValueError, match="arm 'a', seed 0") as caught:
            tidy_curves([curve | change])
        assert complaint in str(caught.value)
    with pytest.raises(ValueError, match="there twice"):
        tidy_curves([curve | {"x": [0, 1]}] * 2)


@given(st.dictionaries(st.text(), SCALARS, max_size=5))
def test_a_record_comes_back_as_it_was_written(tmp_path_factory, columns):
    directory = tmp_path_factory.mktemp("record")
    record = a_record(directory, [columns | {"arm": "a", "seed": 0}])
    record.write(directory / "record.json")
    assert RunRecord.load(directory / "record.json") == record
    assert os.listdir(directory) == ["record.json"]


def test_damage_is_named(tmp_path):
    path = tmp_path / "record.json"
    with pytest.raises(FileNotFoundError):
        RunRecord.load(path)
    a_record(tmp_path).write(path)
    good = path.read_text()
    missing = {key: value for key, value in json.loads(good).items() if key != "sha256"}
    for text in [
        good[:-9],
        "",
        "[]",
        "{}",
        json.dumps(missing),
        good.replace("0.30000000000000004", "0.4"),
        good.replace('"lr": 0.1', '"lr": 0.2'),
        good.replace('"rows"', '"lines"'),
        "[" * 100_000,
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=r"corrupt record .*record.json: .+"):
            RunRecord.load(path)
    path.write_bytes(b"\xff" + good.encode())
    with pytest.raises(ValueError, match="corrupt record"):
        RunRecord.load(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a" / "file.json"
    write_atomic(path, "old")
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", lambda descriptor: os.write(-1, b""))
        with pytest.raises(OSError, match="Bad file descriptor"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["file.json"]
    write_atomic(path, "half a pair: \ud83d")
    assert path.read_text() == r"half a pair: \ud83d"


def test_union_refuses_the_same_arm_and_seed_twice(tmp_path):
    first = a_record(tmp_path / "1")
    second = replace(first, rows=[{"arm": "a", "seed": 1}], directory=tmp_path / "2")
    assert [row["seed"] for row in union_rows([first, second])] == [0, 1]
    with pytest.raises(ValueError, match=r"arm 'a', seed 0 is in two records, .*1 and .*3"):
        union_rows([first, second, replace(first, directory=tmp_path / "3")])


def test_provenance_can_be_stored(monkeypatch):
    monkeypatch.delenv("CLIPLAB_VERSIONS", raising=False)  # of a run in this process
    found = json.loads(json.dumps(provenance()))
    assert found["versions"]["torch"] == torch.__version__
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert found["peak_memory_mb"] > 10
    assert found["hardware"]["device"] == "cpu" or torch.cuda.is_available()


def test_values_are_recorded_by_name_with_or_without_rows(monkeypatch):
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    record(val_loss=np.float32(0.5), config={"widths": (1, 2), "name": None})
    record([{"arm": "a", "seed": 0}], epochs=3)
    first, second = (data[MIME] for data in shown)
    assert first["values"] == {"val_loss": 0.5, "config": {"widths": [1, 2], "name": None}}
    assert "rows" not in first
    assert (second["values"], len(second["rows"])) == ({"epochs": 3}, 1)
    assert shown[0]["text/plain"].startswith("recorded val_loss = 0.5, config = {'widths'")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, r"expected rows, or values as in record\(val_loss=0.3\)"),
        ({"choices": {"lr": 1}}, "expected rows"),
        ({"loss": float("nan")}, "loss cannot be stored as JSON: Out of range"),
        ({"model": object()}, "model cannot be stored as JSON"),
    ],
)
def test_what_cannot_be_recorded_is_refused_by_name(said, message):
    with pytest.raises(ValueError, match=message):
        record(**said)
