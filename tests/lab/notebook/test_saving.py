"""Running and saving leaves git clean: a clone, its filter, and the server's hook."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from browsing import commit, git
from checkouts import committed

from cliplab.lab.notebook.saving import install, refresh
from cliplab.lab.notebook.strip import strip

ROOT = Path(__file__).parents[3]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def ran(path):
    """Put into a notebook what JupyterLab does when it is run and saved."""
    notebook = nbformat.read(path, as_version=4)
    for number, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        cell.execution_count = number
        cell.metadata["execution"] = {"iopub.execute_input": "2026"}
        cell.outputs = [nbformat.v4.new_output("stream", text="größer\n" * 9)]
    notebook.metadata.language_info |= {"version": "3.11.7", "pygments_lexer": "ipython3"}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    nbformat.write(notebook, path)


@pytest.fixture
def clone(tmp_path):
    """A clone of one notebook, as ``make lab`` leaves it."""
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    shutil.copy(PATHS[0], tmp_path / "notebooks" / "one.ipynb")
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    assert install(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_the_filter_leaves_it(path, tmp_path):
    text = committed(path)
    assert strip(text) == text
    copied = tmp_path / "ran.ipynb"
    copied.write_text(text, encoding="utf-8")
    ran(copied)
    assert strip(copied.read_text(encoding="utf-8")) == text


def test_what_was_run_is_clean_and_what_was_edited_is_not(clone):
    path = clone / "notebooks" / "one.ipynb"
    ran(path)
    assert git(clone, "status", "--porcelain")  # for its size alone
    refresh(model={"type": "notebook"}, os_path=str(path), contents_manager=None)
    assert git(clone, "status", "--porcelain") == ""
    assert "größer" in path.read_text(encoding="utf-8")  # on disk it stays
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("lr: float = 64.0", "lr: float = 32.0"), encoding="utf-8")
    refresh(model={"type": "notebook"}, os_path=str(path), contents_manager=None)
    assert git(clone, "status", "--porcelain") == " M notebooks/one.ipynb\n"
    changed = git(clone, "diff", "--unified=0").splitlines()
    assert [line for line in changed if re.match(r"[+-] ", line)] == [
        f'{sign}    "lr: float = {lr}  # learning rate of the exploding run, far too high on '
        'purpose [> 0]\\n",'
        for sign, lr in (("-", "64.0"), ("+", "32.0"))
    ]
    commit(clone)
    assert "größer" not in git(clone, "show", "HEAD:notebooks/one.ipynb")
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', '{"worksheets": []}', "3"])
def test_what_is_no_notebook_is_left_as_it_is(text):
    assert strip(text) == text


def test_a_folder_outside_of_git_and_other_files_are_left_alone(tmp_path):
    assert not install(tmp_path)
    refresh(model={"type": "notebook"}, os_path=str(tmp_path / "a.ipynb"))
    refresh(model={"type": "file"}, os_path=str(tmp_path / "a.txt"))
    assert list(tmp_path.iterdir()) == []
