"""Which Python a kernel is, as far as the numbers depend on it; another language has but a name."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.kernel import DEFAULT, is_this_python, kernelspec
from cliplab.lab.runs.versions import versions


def python_minor() -> str:
    """The Python version that numbers depend on, as "3.12"."""
    return ".".join(platform.python_version_tuple()[:2])


def interpreter(kernel_name: str, modules: Iterable[str]) -> dict[str, Any]:
    """A kernel's Python, and the versions there of what provides some modules.

    Of another environment they are what its site-packages folder says; where there is none, the
    program that the kernel starts stands for all. ``ValueError``: no such kernel.
    """
    own = {"python": python_minor(), **versions(modules)}
    if kernel_name == DEFAULT:
        return own
    program = str(kernelspec(kernel_name).argv[0])
    if is_this_python(program):
        return {"kernel": kernel_name, **own}
    folders = sorted(Path(program).parent.parent.glob("lib/python3*/site-packages"))
    if len(folders) != 1 or not Path(program).name.startswith("python"):
        return {"kernel": kernel_name, "program": program}
    python = folders[0].parent.name.removeprefix("python")
    return {"kernel": kernel_name, "python": python, **versions(modules, str(folders[0]))}
