"""A study of one's own: a notebook that works, with claim and presets beside it; or a function."""

from __future__ import annotations

import re
from pathlib import Path

from cliplab.lab.claims.ledger import LEDGER, registered
from cliplab.lab.notebook.presets import read_tables
from cliplab.lab.runs.files import write_atomic

__all__ = ["write_function", "write_study"]

TEMPLATE = Path(__file__).with_name("template")
NAME = "my-study"  # there
PRESETS = "presets.toml"


def write_study(name: Path) -> list[Path]:
    """Write ``name.ipynb``, and add its claim and presets to the files beside it; what was written.

    ``ValueError``, and nothing is written: there is such a notebook, claim or preset, the name is
    no name, or its folder no folder.
    """
    folder, stem = name.parent, name.name.removesuffix(".ipynb")
    _check(folder, stem)
    notebook = folder / f"{stem}.ipynb"
    if notebook.exists():
        raise ValueError(f"{notebook} is there already")
    ledger = registered(folder)  # ValueError: it cannot be read
    if stem in ledger.claims or ledger.of_notebook(stem):
        raise ValueError(f"{folder / LEDGER} has a claim of {stem} already")
    if stem in read_tables(folder / PRESETS):
        raise ValueError(f"{folder / PRESETS} has presets of {stem} already")
    family = read_tables(folder / LEDGER).get("family")
    compared = sum(claim.kind == "comparison" for claim in ledger.claims.values())
    if family is not None and family <= compared:
        raise ValueError(f"{folder / LEDGER}: family = {family}, raise it: this is one more")
    made = [notebook, *(folder / part for part in (LEDGER, PRESETS))]
    for path in made:
        template = TEMPLATE / (f"{NAME}.ipynb" if path is notebook else path.name)
        text = template.read_text(encoding="utf-8").replace(NAME, stem)
        before = path.read_text(encoding="utf-8").rstrip() if path.exists() else ""
        write_atomic(path, f"{before}\n\n{text}" if before else text)
    return made


def write_function(path: Path) -> Path:
    """Write a training function for ``cliplab race``; ``ValueError``: see :func:`write_study`."""
    _check(path.parent, path.stem)
    if path.exists():
        raise ValueError(f"{path} is there already")
    write_atomic(path, (TEMPLATE / "train.py.txt").read_text(encoding="utf-8"))
    return path


def _check(folder: Path, stem: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", stem) or stem == "family":
        like = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")
        hint = f", as {like}" if like not in ("", stem) else ""
        raise ValueError(f"{stem!r}, expected a name of letters (a to z), digits, - and _{hint}")
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is not a folder")
