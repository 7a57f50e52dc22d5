"""The checkout that code runs from, and another state of it beside."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KEY = """
import sys
from pathlib import Path
try:
    from cliplab.lab.runs.keys import code_key
except ImportError:
    from cliplab.lab.keys import code_key
print(code_key(Path(sys.argv[1])))
"""


def git(root: Path, *arguments: str) -> str:
    """What a git command says; ``ValueError`` where it fails."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except OSError as error:
        raise ValueError(f"git: {error}") from None
    except subprocess.CalledProcessError as error:
        raise ValueError(f"git {arguments[0]}: {error.stderr.strip()}") from None
    return done.stdout.strip()


def uncommitted(root: Path) -> str:
    """Files of the package and the notebooks that are not as the commit has them."""
    return git(root, "status", "--porcelain", "--", "cliplab", "notebooks")


@contextmanager
def checked_out(root: Path, sha: str) -> Iterator[Path]:
    """The tree of a commit, in a temporary folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "tree"
        git(root, "worktree", "add", "--detach", str(tree), sha)
        try:
            yield tree
        finally:
            git(root, "worktree", "remove", "--force", str(tree))


def own_key(tree: Path, notebook: Path) -> str:
    """The notebook's code key as the keys module of that tree computes it."""
    env = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", _KEY, str(notebook)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tree)
    if done.returncode:
        raise ValueError(f"its own code key: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()
