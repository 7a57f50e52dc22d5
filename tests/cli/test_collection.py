"""The collection out of a wheel: copied, run there, and nothing of anybody's overwritten."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from needs import need

from cliplab.cli.main import main
from cliplab.lab.notebook.collection import collection

ROOT = Path(__file__).parents[2]
TOML = [ROOT / "notebooks" / name for name in ("presets.toml", "claims.toml")]  # not the answers
SOURCES = [*(ROOT / "notebooks").glob("*.ipynb"), *TOML]
SOURCES += (ROOT / "records").glob("*.registration.json")
NAMES = {path.name for path in SOURCES} | {".cliplab"}


def test_a_checkout_has_its_own():
    assert collection() == ROOT / "notebooks"


def test_copying_twice_is_copying_once(tmp_path, capsys):
    folder = tmp_path / "deep" / "nb"
    assert main(["notebooks", str(folder)]) == 0
    assert f"next: cliplab run 01 --notebooks {folder} --preset smoke" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == NAMES
    assert (folder / ".cliplab").read_text() == "notebooks\n"
    (folder / "presets.toml").unlink()
    (folder / "mine.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main(["notebooks", str(folder)]) == 0
    assert "1 files copied" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path.name for path in folder.iterdir()} == {*NAMES, "mine.txt"}


@pytest.mark.parametrize("name", ["01_exploding_gradients.ipynb", "presets.toml", ".cliplab"])
def test_what_is_not_as_it_would_be_is_kept_and_nothing_is_copied(name, tmp_path, capsys):
    (tmp_path / name).write_text("mine\n")
    (tmp_path / "claims.toml").symlink_to(tmp_path / "nowhere")
    assert main(["notebooks", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert name in err
    assert "claims.toml" in err
    assert {path.name for path in tmp_path.iterdir()} == {name, "claims.toml"}
    assert (tmp_path / name).read_text() == "mine\n"


def test_a_folder_that_cannot_be_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["notebooks", str(folder)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_wheel_brings_notebooks_that_run_anywhere(tmp_path):
    need("hatchling", "dev")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, here = tmp_path / "site", tmp_path / "here"
    with zipfile.ZipFile(wheel) as files:
        files.extractall(site)
    here.mkdir()

    def cliplab(command: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "cliplab.cli", *command.split()],
            cwd=here,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    assert cliplab("notebooks nb")[0] == 0
    for path in SOURCES:
        assert (here / "nb" / path.name).read_bytes() == path.read_bytes()
    status, text = cliplab("run 00 --notebooks nb --preset smoke")
    assert status == 0, text
    (record,) = (here / "results" / "00_what_is_gradient_clipping").rglob("record.json")
    assert json.loads(record.read_text())["preset"] == "smoke"
    status, text = cliplab("list 00 --notebooks nb --json")
    assert (status, json.loads(text)[0]["records"]["smoke"]["current"]) == (0, 1)
    assert cliplab("report --notebooks nb")[0] == 0
    status, text = cliplab("run 16 --notebooks nb --preset smoke")  # of the rows in the wheel
    assert status == 0, text
    for command in ("attest --notebooks nb", "report --notebooks nb --publish"):
        status, text = cliplab(command)
        assert (status, text.splitlines()[-1][:15]) == (2, "cliplab: error:"), text
        assert "Traceback" not in text
    assert {path.name for path in here.iterdir()} == {"nb", "results", "reports"}
