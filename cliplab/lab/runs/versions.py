"""The versions that a result depends on: of the distributions that its code imports."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import distributions

from cliplab.lab.notebook.inside import ASKED

# Imported by code that makes numbers, and yet no number depends on their versions. They draw,
# display or show progress; psutil measures memory; what pooch and requests fetch has a pinned
# sha256; nbformat reads titles.
ONLY_TELL = frozenset(
    ("IPython", "matplotlib", "nbformat", "pooch", "psutil", "requests", "seaborn", "tqdm")
)

_MODULE = r"(?!__pycache__)[A-Za-z_]\w*(\.py,|\.([\w.-]+\.)?(so|pyd),|$)"


def versions(modules: Iterable[str], folder: str | None = None) -> dict[str, str | None]:
    """Versions of the distributions that provide some top-level modules, by distribution.

    Without the standard library and what only tells; all of several that share a module; a module
    that nothing provides stands for itself, with None. ``folder``: another site-packages folder.
    """
    wanted = {name for name in modules if name not in sys.stdlib_module_names | ONLY_TELL}
    found = {one for name in wanted for one in _providers(folder).get(name, (name,))}
    return {name: installed(name, folder) for name in sorted(found)}


def ask_for(names: Iterable[str]) -> None:
    """Have the kernels that this process starts record the versions of some distributions."""
    os.environ[ASKED] = ",".join(names)


def asked_for() -> dict[str, str | None]:
    """Versions of the distributions that whoever started this kernel asked for, else of torch."""
    return {name: installed(name) for name in os.environ.get(ASKED, "torch").split(",") if name}


@cache
def installed(distribution: str, folder: str | None = None) -> str | None:
    """The installed version of a distribution, None without it."""
    path = sys.path if folder is None else [folder]
    return next((one.version for one in distributions(name=distribution, path=path)), None)


@cache
def _providers(folder: str | None = None) -> dict[str, tuple[str, ...]]:
    """Distributions by the top-level modules that they install.

    What ``importlib.metadata.packages_distributions`` says, in a fifth of its time.
    """
    found: dict[str, set[str]] = {}
    for one in distributions(path=sys.path if folder is None else [folder]):
        tops = (one.read_text("top_level.txt") or "").split()
        if not tops:
            lines = (one.read_text("RECORD") or "").splitlines()
            firsts = {line.partition("/")[0] for line in lines}  # a folder's name, else the line
            tops = [re.split(r"\W", first)[0] for first in firsts if re.match(_MODULE, first)]
        for top in tops:
            found.setdefault(top, set()).add(re.sub(r"[-_.]+", "-", one.name).lower())
    return {top: tuple(sorted(names)) for top, names in found.items()}
