"""A published record measured again in full, and which ones a commit draws."""

import subprocess
import sys
from pathlib import Path

import pytest

from cliplab.lab.attest.remeasured import drawn, remeasured
from cliplab.lab.attest.rerun import rerun
from cliplab.lab.runs.csvrows import write_rows

ROOT = Path(__file__).parents[3]


@pytest.fixture
def published(tiny):
    """The rows that the tiny notebook gives by its record's parameters, beside the record."""
    payload, _ = rerun(tiny.root, tiny.notebook, tiny.about["params"])
    (tiny.records / "00_tiny.csv").write_text(write_rows(payload["rows"]))
    tiny.commit()
    return tiny


def test_rows_that_come_out_again_are_said_to_be_the_same(published):
    published.replace("maths.py", "return SCALE * x", "return x * SCALE")
    head = published.commit()
    told = remeasured(published.notebook, published.records, published.root, drawn_of=5)
    assert told == "4 rows, all the same"
    found = published.about["remeasured"]
    assert (found["commit"], found["drawn_of"], found["n_rows"]) == (head, 5, 4)
    assert found["difference"] is None


def test_a_difference_is_written_down_with_its_place_not_hidden(published):
    published.replace("maths.py", "SCALE = 0.5", "SCALE = 0.25")
    published.commit()
    told = remeasured(published.notebook, published.records, published.root)
    assert told == "not the same: arm 'a', seed 1, loss: 1.0 was recorded, now 0.5"
    assert published.about["remeasured"]["difference"] in told


def test_what_is_not_committed_or_fails_leaves_the_record_as_it_was(published):
    before = published.about
    published.replace("maths.py", "return SCALE * x", "return x * SCALE")
    with pytest.raises(ValueError, match=r"not committed:\n.*maths\.py"):
        remeasured(published.notebook, published.records, published.root)
    published.replace("maths.py", "return x * SCALE", "raise OSError('gone')")
    published.commit()
    with pytest.raises(ValueError, match="OSError: gone"):
        remeasured(published.notebook, published.records, published.root)
    assert published.about == before


def test_a_notebook_of_elsewhere_is_not_measured_with_this_code(published, tmp_path):
    with pytest.raises(ValueError, match=r"00_tiny\.ipynb is not in .*other, whose code would run"):
        remeasured(published.notebook, published.records, tmp_path / "other")


def test_a_commit_draws_the_same_ones_always_and_another_commit_others():
    names = [f"{i:02}" for i in range(20)]
    first = drawn(names, "a" * 40, 3)
    assert drawn(reversed(names), "a" * 40, 3) == first
    assert len({tuple(drawn(names, f"{i:040}", 3)) for i in range(20)}) > 15


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "which? Name notebooks, or say --draw N"),
        (["--draw", "0"], "not a whole number"),
        (["00", "01", "--records", "nowhere"], "no published record in nowhere: 00_what_is_gradie"),
    ],
)
def test_the_command_says_what_it_lacks(arguments, error):
    command = [sys.executable, "-m", "cliplab.cli", "remeasure", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert error in done.stderr


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no commit draws in an archive")
def test_the_command_names_those_drawn_and_runs_nothing():
    command = [sys.executable, "-m", "cliplab.cli", "remeasure", "--draw", "3", "--list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert len(set(names)) == 3
    assert all(Path("records", f"{name}.registration.json").exists() for name in names)
