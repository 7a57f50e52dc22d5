"""The room's own rules: one short module a framework, and nobody else imports it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cliplab"
ROOM = PACKAGE / "integrations"
FRAMEWORKS = {"accelerate", "fastai", "ignite", "keras", "lightning", "skorch"}
FRAMEWORKS |= {"stable_baselines3", "transformers"}
MODULES = [path for path in ROOM.glob("*.py") if path.stem in FRAMEWORKS]


def imported(path):
    """First names of all that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_is_short_and_imports_its_own_framework(path):
    assert len(path.read_text("utf-8").splitlines()) <= 60
    assert FRAMEWORKS & set(imported(path)) == {path.stem}


def test_nobody_else_imports_a_framework():
    others = [path for path in PACKAGE.rglob("*.py") if path not in MODULES]
    found = {path: FRAMEWORKS & set(imported(path)) for path in others}
    assert {path.name: names for path, names in found.items() if names} == {}


def test_importing_the_room_imports_no_framework():
    code = "import sys, cliplab, cliplab.integrations.making; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not FRAMEWORKS & set(done.stdout.split())
