"""``cliplab export`` and ``inspect`` as they are typed; ``diff`` is in lab/report/test_diff.py."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commanding import status_of
from recording import put

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Results of two notebooks in the working directory, one text not of ASCII."""
    monkeypatch.chdir(tmp_path)
    for lr in (0.1, 0.2):
        put(Path("results"), "01_a", {"lr": lr}, rows=[{"arm": "ä", "seed": 0, "loss": lr / 3}])
    put(Path("results"), "sub/b", {"x": None}, preset="smoke", values={"best": 1})
    return tmp_path


def test_a_table_goes_to_stdout_or_to_a_file(here, capsys):
    assert status_of("export 01") == 0
    out = capsys.readouterr().out
    assert status_of("export 01 -o out/a.csv") == status_of("export 01 -o out/a.csv") == 0
    assert (here / "out" / "a.csv").read_text() == out
    assert capsys.readouterr().out.splitlines()[0] == "out/a.csv: 2 rows, 7 columns, of 2 runs"
    rows = list(csv.DictReader(out.splitlines()))
    assert sorted((row["lr"], float(row["loss"])) for row in rows) == [
        ("0.1", 0.1 / 3),
        ("0.2", 0.2 / 3),
    ]
    assert status_of("export --preset smoke -o b.json") == 0
    (row,) = json.loads((here / "b.json").read_text())
    assert (row["notebook"], row["x"], row["best"]) == ("sub/b", None, 1)


def test_a_table_is_utf8_wherever_it_goes(here):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "cliplab.cli", "export", "01"]
    done = subprocess.run(command, env=env, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "ä" in done.stdout.decode()


def test_a_bad_record_is_named_the_rest_exported_and_the_status_is_1(here, capsys):
    bad = next(here.glob("results/01_a/quick/*/record.json"))
    bad.write_bytes(b"\xff")
    assert status_of("export") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err.count("\n") == 1
    assert str(bad.relative_to(here)) in err


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("export 02", "'02' matches no notebook: 01_a, sub/b"),
        ("export none.ipynb", "matches no notebook"),
        ("export --preset full", "no records of preset 'full' in results"),
        ("export --results nowhere", "no results: nowhere is not a folder"),
        ("export -o table.xlsx", "expected a name that ends in .csv, .json, .parquet"),
        ("export -o mine.csv", "--force overwrites it"),
        ("export -o results", "expected a name that ends in"),
        ("export -o mine.csv/a.csv", "File exists: 'mine.csv'"),
        ("inspect none.ipynb", "no notebook none.ipynb"),
        ("inspect mine.csv", "'mine.csv' matches no notebook"),
        ("diff results", "required: B"),
        ("notebooks", "required: DIR"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(command, complaint, here, capsys):
    (here / "mine.csv").write_text("mine\n")
    before = sorted(here.rglob("*"))
    assert status_of(command) in (1, 2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert complaint in err
    assert sorted(here.rglob("*")) == before
    assert (here / "mine.csv").read_text() == "mine\n"


def test_parameters_are_told_as_text_and_as_json(tmp_path, make_notebook, capsys):
    path = make_notebook(tmp_path / "a.ipynb", parameters="lr: float = 0.1  # step (s) [> 0]")
    assert status_of(f"inspect {path}") == 0
    assert "lr: float = 0.1" in capsys.readouterr().out
    assert status_of(f"inspect {path} --json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == ["lr", "first_seed", "n_seeds"]
