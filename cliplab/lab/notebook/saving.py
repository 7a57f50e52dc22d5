"""Running and saving a notebook leaves git clean, and its outputs stay in the file.

``python -m cliplab.lab.notebook.saving`` has git leave them out of what it compares and commits, by
the filter that .gitattributes names; :func:`refresh` is a Jupyter server's ``post_save_hook``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliplab.lab.notebook import strip

CLEAN = f'"{sys.executable}" -I -S "{strip.__file__}"'


def install(folder: Path) -> bool:
    """Set the filter in the configuration of the clone that a folder is in; whether it is in one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     install(Path(folder))
    False
    """
    settings = {"filter.notebook.clean": CLEAN, "filter.notebook.smudge": "cat"}
    return all(_git(folder, "config", name, value) for name, value in settings.items())


def refresh(model: Mapping[str, Any], os_path: str, **_: object) -> None:
    """Have git note that a notebook is unchanged, if all that is new in it are outputs.

    Otherwise git calls it modified, for its size, until the next ``git add``.
    """
    path = Path(os_path)
    if model["type"] == "notebook" and _git(path.parent, "diff", "--quiet", "--", path.name):
        _git(path.parent, "update-index", "--", path.name)


def _git(folder: Path, *arguments: str) -> bool:
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:  # no git here
        return False


if __name__ == "__main__":
    install(Path())
