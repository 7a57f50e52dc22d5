"""Beside the runs: whose they are, and what was asked of them before they were made.

What is asked is registered before its first run, with draws and seeds of its own: whatever is
changed after a look is another question, and takes fresh ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cliplab.lab.race.function import Target
from cliplab.lab.runs.files import write_atomic

__all__ = ["Registered", "check_folder", "find", "judged_before", "register"]

FILE = "race.json"
APART = 10_000  # from one first seed to the next, more than a race has


@dataclass
class Registered:
    """A question: all that decides its answer beside the runs, its seeds, the sizes judged."""

    given: dict[str, Any]
    first_seed: int
    judged: list[str] = field(default_factory=list)

    def has(self, seed: int) -> bool:
        """Whether a run of this seed is one of its own."""
        return self.first_seed <= seed < self.first_seed + APART


def check_folder(folder: Path, target: Target) -> None:
    """Make the folder the function's; ``ValueError``: it is another one's."""
    place = os.path.relpath(os.path.realpath(target.path), os.path.realpath(folder))
    own = f"{place}:{target.name}"
    known, questions = _read(folder)
    if known not in ("", own):
        raise ValueError(
            f"{folder} has the runs of {known} (seen from there), and not of {own}: "
            "give another folder by --results"
        )
    _write(folder, own, questions)


def find(
    folder: Path, given: Mapping[str, Any], seeds: Iterable[int]
) -> tuple[Registered, list[Registered]]:
    """The question, as it was registered or would be, and the others that have runs.

    ``seeds``: of all saved runs. A new question has none of them, and none of another question's.
    """
    _, known = _read(folder)
    used = {seed - seed % APART for seed in seeds}
    own = next((one for one in known if one.given == given), None)
    if own is None:
        last = max([*used, *(one.first_seed for one in known)], default=-APART)
        own = Registered(dict(given), last + APART)
    return own, [one for one in known if one != own and one.first_seed in used]


def register(folder: Path, given: Mapping[str, Any], first_seed: int) -> None:
    """Note the question in the folder if it is new."""
    function, known = _read(folder)
    if all(one.given != given for one in known):
        _write(folder, function, [*known, Registered(dict(given), first_seed)])


def judged_before(folder: Path, given: Mapping[str, Any], size: str) -> list[str]:
    """Note that the question is judged at a size; the other sizes that it was judged at before."""
    function, known = _read(folder)
    (own,) = (one for one in known if one.given == given)
    if size not in own.judged:
        own.judged.append(size)
        _write(folder, function, known)
    return own.judged[: own.judged.index(size)]


def _read(folder: Path) -> tuple[str, list[Registered]]:
    path = folder / FILE
    if not path.exists():
        return "", []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["function"]), [Registered(**one) for one in found["registered"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged: remove it") from None


def _write(folder: Path, function: str, known: Iterable[Registered]) -> None:
    content = {"function": function, "registered": [asdict(one) for one in known]}
    write_atomic(folder / FILE, json.dumps(content, indent=1) + "\n")
