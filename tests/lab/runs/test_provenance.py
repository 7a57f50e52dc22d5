"""Whose commit a record names: cliplab's own, and that of the notebook's folder."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cliplab.lab.runs import provenance as room


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A repository with a commit, where a notebook runs."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "-q")
    (project / "a.ipynb").write_text("{}")
    git(project, "add", ".")
    git(project, "commit", "-qm", "first")
    monkeypatch.chdir(project)
    return project


def commits() -> list[object]:
    found = room.provenance()
    names = ("git_sha", "git_dirty", "notebook_git_sha", "notebook_git_dirty")
    return [found[name] for name in names]


def test_a_repository_that_encloses_an_installed_cliplab_is_not_its_own(project, monkeypatch):
    installed = project / "venv" / "site-packages" / "cliplab" / "lab" / "runs" / "provenance.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(room.__file__, installed)
    monkeypatch.setattr(room, "__file__", str(installed))
    sha = git(project, "rev-parse", "HEAD")
    assert commits() == [None, None, sha, True]
    (project / ".gitignore").write_text("venv\n")
    git(project, "add", ".")
    git(project, "commit", "-qm", "second")
    assert commits() == [None, None, git(project, "rev-parse", "HEAD"), False]
    git(project, "add", "-f", "venv")
    git(project, "commit", "-qm", "a checkout")
    head = git(project, "rev-parse", "HEAD")
    assert commits() == [head, False, head, False]


def test_a_notebook_in_no_repository_or_in_one_without_commits_has_none(
    project, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert commits()[2:] == [None, None]
    (tmp_path / "fresh").mkdir()
    git(tmp_path / "fresh", "init", "-q")
    monkeypatch.chdir(tmp_path / "fresh")
    assert commits()[2:] == [None, None]
