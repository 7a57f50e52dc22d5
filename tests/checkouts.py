"""Files of this checkout, as git holds them."""

import subprocess
from pathlib import Path


def committed(path: Path) -> str:
    """A file as git holds it: without the outputs of notebooks that were run here."""
    command = ["git", "show", f":./{path.name}"]
    shown = subprocess.run(command, cwd=path.parent, capture_output=True)
    return (path.read_bytes() if shown.returncode else shown.stdout).decode()
