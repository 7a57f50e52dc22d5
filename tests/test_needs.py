"""Whoever is promised a package is told when it is not there."""

import importlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {
    "a test": "def test_it():\n    need('no_such_module', 'parity')\n",
    "a fixture": """
@pytest.fixture
def peer():
    return need('no_such_module', 'parity')

def test_it(peer):
    pass
""",
    "a file": "need('no_such_module', 'parity')\n\ndef test_it():\n    pass\n",
}


def outcomes(folder: Path, required: str) -> tuple[int, str]:
    """How pytest ends where every file above wants its package: its exit status, its last line."""
    for name, code in FILES.items():
        file = folder / f"test_{name.replace(' ', '_')}.py"
        file.write_text(f"import pytest\nfrom needs import need\n\n{code}")
    environment = {
        **os.environ,
        "CLIPLAB_REQUIRE": required,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    # One file that cannot be imported does not hide what comes of the others.
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run += ["--continue-on-collection-errors", "."]
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("required", "status", "line"),
    [
        ("lab,games", 0, "3 skipped"),
        ("lab,parity games", 1, "1 failed, 2 errors"),
    ],
)
def test_a_skip_for_want_of_a_required_package_is_a_failure(tmp_path, required, status, line):
    ended, said = outcomes(tmp_path, required)
    assert ended == status
    assert line in said


@pytest.mark.parametrize("given", ["parity", "lab,parity", "parity games", " lab, parity"])
def test_the_extras_are_named_by_commas_or_spaces(monkeypatch, given):
    monkeypatch.setenv("CLIPLAB_REQUIRE", given)
    names = runpy.run_path(str(Path(__file__).with_name("needs.py")))
    assert "parity" in names["REQUIRED"]
    monkeypatch.setenv("CLIPLAB_REQUIRE", "")
    assert runpy.run_path(str(Path(__file__).with_name("needs.py")))["REQUIRED"] == frozenset()


def test_a_package_that_is_there_is_handed_over(tmp_path, monkeypatch):
    needs = importlib.import_module("needs")
    (tmp_path / "loud_module.py").write_text("import warnings\nwarnings.warn('old')\nVALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert needs.need("loud_module", "parity").VALUE == 3
