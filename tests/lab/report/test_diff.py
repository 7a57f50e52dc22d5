"""Which numbers differ on two sides: results folders, published records, commits."""

import json
import math
import subprocess
from pathlib import Path

import pytest
from commanding import status_of
from recording import put

from cliplab.lab.report.diff import compare
from cliplab.lab.report.sides import open_side
from cliplab.lab.runs.csvrows import write_rows

PARAMS = {"lr": 0.1, "first_seed": 0, "n_seeds": 2}


def rows(*losses, first=0, **more):
    return [{"arm": "a", "seed": first + i, "loss": loss} | more for i, loss in enumerate(losses)]


def side(folder: Path, *words: str, preset=None):
    return open_side(str(folder), words, preset, records=Path("records"), notebooks=Path("nb"))


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Folders old and new, the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "old", tmp_path / "new"


def test_the_same_recorded_in_parts_is_the_same(two):
    old, new = two
    put(old, "a", PARAMS, rows=rows(0.1, math.nan), choices={"lr": None})
    for seed, loss in enumerate((0.1, math.nan)):
        part = {"lr": 0.1, "first_seed": seed, "n_seeds": 1}
        put(new, "a", part, rows=rows(loss, first=seed, other=None), choices={"lr": None})
    put(new, "a", PARAMS, rows=rows(7.0, 7.0), code="before", finished="2029")
    (found,) = compare(side(old), side(new))
    assert found.same


@pytest.mark.parametrize(
    ("x", "y"), [(0.1, 0.1 + 2e-17), (1, 1.0), (0.0, -0.0), (1, True), ("1", 1), (math.nan, None)]
)
def test_numbers_are_compared_by_type_and_bits(x, y, two):
    for folder, value in zip(two, (x, y), strict=True):
        put(folder, "a", PARAMS, values={"best": {"of": [value]}})
    (found,) = compare(*map(side, two))
    assert found.same == (repr(x) == repr(y))
    assert [(c.name, c.old, c.new) for c in found.changes if c.new is not None] == (
        [] if found.same or y is None else [("of[0]", x, y)]
    )


def test_what_differs_is_named(two, capsys):
    old, new = two
    curve = {"arm": "a", "seed": 0, "name": "loss", "x": [1, 2], "y": [0.5, 0.25]}
    put(old, "a", PARAMS, rows=rows(0.1, 0.2, 0.3, gone=1), curves=[curve], choices={"c": 1})
    now = [*rows(0.1, 0.25, came=1), {"arm": "b", "seed": 0, "loss": 1.0}]
    put(new, "a", PARAMS | {"lr": 0.2}, rows=now, curves=[curve | {"y": [0.5, 0.2]}])
    put(new, "b", {})
    put(old, "same", {}, rows=rows(1.0))
    put(new, "same", {}, rows=rows(1.0))
    assert status_of("diff old new") == 1
    text = capsys.readouterr().out.splitlines()
    assert [" ".join(line.split()) for line in text] == [
        "a quick: 1 parameters differ, 2 columns differ, 2 numbers differ, "
        "2 only in old, 1 only in new",
        "parameter lr 0.1 → 0.2",
        "column gone only in old",
        "column came only in new",
        "arm 'a', seed 1 loss 0.2 → 0.25",
        "curve loss of arm 'a', seed 0 y[1] 0.25 → 0.2",
        "arm 'a', seed 2 only in old",
        "choice c only in old",
        "arm 'b', seed 0 only in new",
        "b quick: only in new",
        "1 the same, 2 different",
    ]
    assert status_of("diff old new same --preset quick") == 0
    assert capsys.readouterr().out == "1 the same, 0 different\n"
    assert status_of("diff old new --json") == 1
    a, b, same = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert a["parameters"] == {"lr": [0.1, 0.2]}
    assert a["changes"][0] == {"of": ["row", "a", 1, 1], "name": "loss", "old": 0.2, "new": 0.25}
    assert (b["only"], same["same"]) == ("new", True)


def test_runs_of_a_grid_are_told_apart_by_what_differs(two, capsys):
    old, new = two
    for lr in (0.1, 0.2, 0.3):
        put(old, "a", {"lr": lr, "width": 8}, rows=rows(lr))
        put(new, "a", {"lr": lr if lr < 0.3 else 0.4, "width": 8}, rows=rows(0.1))
    assert status_of("diff old new") == 1
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("a ")]
    assert heads == [
        "a quick lr=0.2: 1 numbers differ",
        "a quick: 1 parameters differ, 1 numbers differ",
    ]


def test_at_most_twenty_lines_are_shown_unless_all_are_asked_for(two, capsys):
    for folder, shift in zip(two, (0, 1), strict=True):
        put(folder, "a", {}, rows=rows(*(i + shift for i in range(30))))
    assert status_of("diff old new") == 1
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 23
    assert shown[-2].strip() == "10 lines more (--all)"
    assert status_of("diff old new --all") == 1
    assert len(capsys.readouterr().out.splitlines()) == 32


def test_what_cannot_be_read_is_trouble_and_the_rest_is_compared(two, capsys):
    new = two[1]
    for folder in two:
        put(folder, "a", {}, rows=rows(1.0))
    (bad := put(new, "b", {}).directory / "record.json").write_text("{")
    assert status_of("diff old new") == 2
    out, err = capsys.readouterr()
    assert out == "1 the same, 0 different\n"
    assert str(bad.relative_to(new)) in err
    assert err.count("\n") == 1
    for command in ("diff old none", "diff old new x", "diff old --", "diff old new --preset z"):
        assert status_of(command) == 2
        err = capsys.readouterr().err
        assert err.startswith("cliplab: error: ")
        assert err.count("\n") == 1


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def publish(folder: Path, *losses: float) -> None:
    folder.mkdir(exist_ok=True)
    about = {"preset": "quick", "params": PARAMS, "choices": {"lr": 0.1}}
    (folder / "a.json").write_text(json.dumps(about))
    (folder / "a.csv").write_text(write_rows(rows(*losses, word=" ")))


def test_a_commit_is_compared_with_results_and_with_records(two, capsys, monkeypatch):
    old, new = two
    project = new.parent
    publish(project / "records", 0.1, 0.2)
    git(project, "init")
    git(project, "add", "records")
    git(project, "commit", "-m", "first")
    git(project, "tag", "v1")
    put(old, "a", PARAMS, rows=rows(0.1, 0.2, word=" "), choices={"lr": 0.1}, values={"v": 1})
    assert status_of("diff v1 old") == status_of("diff HEAD records a") == 0
    publish(project / "records", 0.1, 0.3)
    capsys.readouterr()
    assert status_of("diff v1 records") == 1
    assert "seed 1  loss  0.2 → 0.3" in capsys.readouterr().out
    monkeypatch.chdir(old)
    assert status_of("diff v1 . --records ../records") == 0
    (project / "records" / "a.json").write_text("[]")
    git(project, "commit", "-am", "broken")
    capsys.readouterr()
    assert status_of("diff v1 HEAD --records ../records") == 2
    assert "HEAD: a is no published record" in capsys.readouterr().err
