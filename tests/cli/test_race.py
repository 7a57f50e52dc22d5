"""``cliplab race`` as it is typed, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from racing import TOY, calls, write_toy
from waiting import LONG

from cliplab.lab.runs.csvrows import read_rows

ROOT = Path(__file__).parents[2]
COMMAND = "race train.py:train --minutes 600 --lr 1e-4:10 --threshold 0.01:100"
HANG = """

def hang():
    import os, time

    here = Path(__file__)
    done = here.with_name("calls.txt")
    calls = done.read_text().splitlines() if done.exists() else []
    if len(calls) == int(os.environ.get("HANG_AT", -1)):
        here.with_name("hangs").touch()
        time.sleep(600)
"""
pytestmark = pytest.mark.slow


def start(words: str, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "cliplab.cli", *words.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(words: str, folder: Path) -> tuple[int, str, str]:
    process = start(words, folder)
    out, err = process.communicate(timeout=LONG)
    return process.returncode, out, err


def test_a_race_ends_in_a_page_and_the_same_command_runs_nothing_again(tmp_path):
    write_toy(tmp_path)
    status, out, err = done(f"{COMMAND} --margin 0.1", tmp_path)
    assert status == 0, err
    assert "size full, " in err
    assert out.startswith("Clipping the norm helps\n")
    folder = tmp_path / "race" / "train-train"
    page = (folder / "race.html").read_text()
    assert '<h1 class="helps">Clipping the norm helps</h1>' in page
    for name in ("Loss", "Failures", "Usable range", "With clipping", "Without", "How flat"):
        assert re.search(rf"^{name}: ", out, re.MULTILINE), name
        assert f"<dt>{name}</dt>" in page
    assert "There is no larger size" in page
    assert not re.search(r"https?://|<script|<link|src=", page)
    rows = read_rows((folder / "rows.csv").read_text())
    assert {row["way"] for row in rows} == {"none", "norm"}
    assert len(rows) == page.count('class="none ') + page.count('class="norm ') - 48

    before = calls(tmp_path)
    assert len(before) == len(set(before))
    (tmp_path / "train.py").write_text(TOY + "# a comment\n")
    status, again, err = done(f"{COMMAND} --margin 0.1", tmp_path)
    assert (status, again, calls(tmp_path)) == (0, out, before), err
    status, out, err = done(COMMAND, tmp_path)  # without a margin: numbers and no word
    assert status == 0, err
    assert "asked anew: with draws and seeds of its own, from 10000 on" in err
    assert out.startswith("Measured, without a word: no margin was given")
    assert "helps" not in out


def test_what_is_killed_goes_on_and_several_processes_give_the_same_rows(tmp_path, monkeypatch):
    hanging = TOY.replace("    rows = []\n", "    hang()\n    rows = []\n") + HANG
    one, two = write_toy(tmp_path / "a", hanging).parent, write_toy(tmp_path / "b").parent
    monkeypatch.setenv("HANG_AT", "30")
    process = start(COMMAND, one)
    until = time.monotonic() + LONG
    while not (one / "hangs").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    monkeypatch.delenv("HANG_AT")
    before = calls(one)
    with (one / "race" / "train-train" / "rows.jsonl").open("a") as file:
        file.write('{"torn')
    status, _, err = done(COMMAND, one)
    assert status == 0, err
    assert "30 runs are saved" in err
    assert len(calls(one)) == len(set(calls(one))) > len(before) == 30

    status, _, err = done(f"{COMMAND} --jobs 2 --at-once 7", two)
    assert status == 0, err
    timed = [line.split()[0] for line in calls(two)[:28]]  # a full call of each job, twice
    assert timed == ["none"] * 14 + ["norm"] * 14
    first, second = ((f / "race" / "train-train" / "rows.csv").read_text() for f in (one, two))
    assert first == second


def test_an_error_of_the_function_is_shown_with_its_run(tmp_path):
    write_toy(tmp_path, TOY.replace("    rows = []\n", "    rows = []\n    1 / (seeds[0] - 129)\n"))
    status, out, err = done(COMMAND, tmp_path)
    assert (status, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("cliplab: error: train.py:train raised ZeroDivisionError: division by")
    assert re.search(r"\(line \d+ of train\.py\) at \(none, lr \S+, seed 129\)$", last)
    assert "1 / (seeds[0] - 129)" in err
    assert "cliplab/lab" not in err.split("Traceback")[1]
    saved = (tmp_path / "race" / "train-train" / "rows.jsonl").read_text().splitlines()
    assert len(saved) == len(calls(tmp_path)) > 3  # it raised before it said that it was called
