"""Beside the runs: whose they are, and what decides their word, with when it was first given."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliplab.lab.race.function import Target
from cliplab.lab.runs.files import write_atomic

__all__ = ["check_folder", "runs_before"]

FILE = "race.json"


def check_folder(folder: Path, target: Target) -> None:
    """Make the folder the function's; ``ValueError``: it is another one's."""
    place = os.path.relpath(os.path.realpath(target.path), os.path.realpath(folder))
    own, known = f"{place}:{target.name}", _read(folder)
    if known.setdefault("function", own) != own:
        raise ValueError(
            f"{folder} has the runs of {known['function']} (seen from there), and not of {own}: "
            "give another folder by --results"
        )
    _write(folder, known)


def runs_before(folder: Path, decides: Mapping[str, Any], runs: int) -> int:
    """How many runs there were when what decides was first given so; noted in the folder."""
    known = _read(folder)
    for one in known["decided"]:
        if one["given"] == decides:
            return int(one["runs"])
    known["decided"].append({"given": dict(decides), "runs": runs})
    _write(folder, known)
    return runs


def _read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not path.exists():
        return {"decided": []}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(one.keys() == {"given", "runs"} for one in found["decided"]):
            return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"{path} is damaged: remove it")


def _write(folder: Path, known: Mapping[str, Any]) -> None:
    write_atomic(folder / FILE, json.dumps(known, indent=1) + "\n")
