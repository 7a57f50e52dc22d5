"""Whoever is promised a package is told when it is not there."""

import importlib
import os
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


def ends(folder: Path, code: str, required: str) -> tuple[int, str]:
    """How pytest ends: its exit status and its last line."""
    (folder / "test_it.py").write_text(f"import pytest\nfrom needs import need\n\n{code}")
    environment = {
        **os.environ,
        "CLIPLAB_REQUIRE": required,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("code", FILES.values(), ids=FILES)
def test_a_skip_for_want_of_a_required_package_is_a_failure(tmp_path, code):
    for required in ("", "lab,games"):
        status, line = ends(tmp_path, code, required)
        assert "1 skipped" in line
        assert status in (0, 5)  # 5: a file that skips has no tests
    for required in ("parity", "lab,parity", "parity games"):
        status, line = ends(tmp_path, code, required)
        assert "1 error" in line or "1 failed" in line
        assert status in (1, 2)


def test_a_package_that_is_there_is_handed_over(tmp_path, monkeypatch):
    needs = importlib.import_module("needs")
    (tmp_path / "loud_module.py").write_text("import warnings\nwarnings.warn('old')\nVALUE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert needs.need("loud_module", "parity").VALUE == 3
