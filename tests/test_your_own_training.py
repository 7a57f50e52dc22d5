"""The page on one's own training, executed: its file is written, its commands are run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your_own_training.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.slow


def run(block: str, folder: Path) -> str:
    """What the commands of a block print, on stdout and on stderr."""
    said = []
    for line in block.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "cliplab"
        done = subprocess.run(
            [sys.executable, "-m", "cliplab.cli", *words[1:]],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    return "".join(said)


def test_the_function_of_the_page_is_raced_by_its_command(tmp_path):
    [code] = [block for kind, block in BLOCKS if kind == "python"]
    said = run(next(block for kind, block in BLOCKS if "cliplab race" in block), tmp_path)
    assert (tmp_path / "train.py").read_text() == code
    assert re.search(r"size (tiny|small|half|full32|full), ", said)
    assert re.search(r"^Loss: ", said, re.MULTILINE)
    assert re.search(r"^Control: ", said, re.MULTILINE)
    assert "no control" not in said
    assert (tmp_path / "race" / "train-train" / "race.html").is_file()
    assert (tmp_path / "race" / "train-train" / "rows.csv").is_file()


def test_the_notebook_of_the_page_is_written_and_run(tmp_path):
    command = next(block for kind, block in BLOCKS if block.startswith("cliplab new my-study"))
    said = run(command, tmp_path)
    assert re.search(r"^my-study +no verdict \(smoke, small\)", said, re.MULTILINE)
    assert (tmp_path / "reports" / "index.html").is_file()
