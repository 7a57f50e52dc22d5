"""How a kernel is told to note which files it opens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def watching(argv: Sequence[str], opened: Path) -> list[str]:
    """More arguments for a kernel that is started by ``argv``; none if it is no ipykernel.

    None either with PYTHONSTARTUP, which IPython leaves out where it is given code to run.
    ``opened`` is read by :func:`cliplab.lab.runs.reads.undeclared`.
    """
    if os.environ.get("PYTHONSTARTUP") or not any("ipykernel" in part for part in argv):
        return []
    script = str(Path(__file__).with_name("watch.py"))
    call = f"__import__('runpy').run_path({script!r}, {{'OPENED': {str(opened)!r}}}) and None"
    return [f"--IPKernelApp.code_to_run={call}"]
