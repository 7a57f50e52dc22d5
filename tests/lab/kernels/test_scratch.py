"""What killed processes leave in the temporary directory goes with the next one that starts."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cliplab.lab.kernels.scratch import remove_forsaken

HOLD = """
import sys
from cliplab.lab.kernels.scratch import scratch
(scratch().folder / "socket").touch()
assert scratch() is scratch()
print(scratch().folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def start() -> tuple[subprocess.Popen[str], Path]:
    command = [sys.executable, "-c", HOLD]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_with_its_process_or_with_the_next_one(temporary):
    (lives, kept), (killed, left) = start(), start()
    assert kept != left
    killed.kill()
    killed.communicate()
    others = [temporary / "cliplab-sockets-mine", temporary / "cliplab-reports"]
    for other in others:
        other.mkdir()
    (others[1] / ".lock").touch()
    assert (left / "socket").exists()
    next_one, own = start()
    assert not left.exists()
    for process in (lives, next_one):
        assert process.poll() is None
        process.communicate()
    assert not kept.exists()
    assert not own.exists()
    remove_forsaken()
    assert sorted(temporary.iterdir()) == sorted(others)
