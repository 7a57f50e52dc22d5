"""The tasks that published records hold: models, data and optimizers on which ways were compared.

Read are rows (``NN.csv``) and registrations (``NN.registration.json``). Rows settle what is found:
their seeds follow from the hash of their registration, which makes all others strangers to them. So
a run key that holds the rows is enough; it does not move when provenance is written anew, or a
registration lies there whose rows are not measured yet.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cliplab.lab.across.placing import model_of, optimizer_of
from cliplab.lab.claims.comparison import ranked
from cliplab.lab.claims.folds import folds_of
from cliplab.lab.notebook.registrations import REGISTRATION, sealed
from cliplab.lab.runs.csvrows import read_rows
from cliplab.lab.study.results import WayRuns, way_runs
from cliplab.lab.study.size import size_of

__all__ = ["NONE", "Fold", "Row", "Task", "loss_of", "read_tasks"]

NONE = "none"  # the way that does not clip, in every study that has one
OWN = 10**6  # how far above a registration's first seed the seeds of its studies lie, at most

Row = Mapping[str, Any]


class Fold(NamedTuple):
    """One study: what was registered of it, and its rows and runs by way."""

    about: Mapping[str, Any]
    rows: Mapping[str, Sequence[Row]]
    runs: Mapping[str, WayRuns]


@dataclass(frozen=True)
class Task:
    """A study of registered comparisons with its folds, if it has several.

    ``claims``: the ids of the comparisons. ``margin``: the smallest of theirs. ``clipped``: the way
    that stands for clipping where tasks are compared.
    """

    notebook: str
    study: str
    claims: tuple[str, ...]
    question: str
    margin: float
    unit: str
    clipped: str
    folds: tuple[Fold, ...]

    @property
    def name(self) -> str:
        """Short: ``03 clip``."""
        return f"{self.notebook[:2]} {self.study}"

    @property
    def model(self) -> str:
        """What was trained, in a word."""
        return model_of(self.question)

    @property
    def optimizer(self) -> str:
        """What it was trained with."""
        return optimizer_of(self.question)

    @property
    def ways(self) -> list[str]:
        """The ways that were trained, but for those that only serve as a control."""
        return list(self.folds[0].runs)

    @property
    def has_none(self) -> bool:
        """Whether one of them does not clip."""
        return NONE in self.ways

    def level(self, fold: Fold) -> float:
        """The tuned loss of not clipping or of ``clipped``, whichever is better in the fold."""
        return float(
            np.nanmin([loss_of(fold.runs[w]) for w in (NONE, self.clipped) if w in fold.runs])
        )


def loss_of(runs: WayRuns) -> float:
    """A way's tuned loss: that of its best of k configurations, given success."""
    return ranked(runs).loss(runs.size.configurations, runs.size.best_of)


def read_tasks(
    folder: Path, asked: Collection[str] | None = None, only: Collection[str] | None = None
) -> tuple[list[Task], dict[str, str]]:
    """The tasks of the registrations and rows in a folder; and, by name, why others are left out.

    ``asked``: the ids of the claims that are comparisons today; a withdrawn one is left out.
    ``only``: the notebooks that are looked at; no file of another is opened.
    """
    tasks: list[Task] = []
    left_out: dict[str, str] = {}
    for path in sorted(folder.glob(f"*{REGISTRATION}")):
        notebook = path.name.removesuffix(REGISTRATION)
        if only is not None and notebook not in only:
            continue
        rows = folder / f"{notebook}.csv"
        content = json.loads(path.read_text(encoding="utf-8"))
        if content != sealed(content):
            left_out[notebook] = "its registration was changed"
        elif not rows.exists():
            left_out[notebook] = "not measured yet"
        else:
            own = _grouped(read_rows(rows.read_text(encoding="utf-8")))
            for study, claims in _compared(content["claims"], asked).items():
                try:
                    tasks.append(_task(notebook, study, claims, content, own))
                except ValueError as error:
                    left_out[f"{notebook}, {study}"] = str(error)
    return tasks, left_out


def _compared(
    claims: Mapping[str, Mapping[str, Any]], asked: Collection[str] | None
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """The comparisons, by study and id."""
    found: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for name, claim in claims.items():
        if claim["kind"] == "comparison" and (asked is None or name in asked):
            found[claim["study"]][name] = claim
    return found


def _grouped(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """The rows of studies, by study and way."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if isinstance(row.get("study"), str):
            found[row["study"]][row["way"]].append(row)
    return found


def _task(
    notebook: str,
    study: str,
    claims: Mapping[str, Mapping[str, Any]],
    registration: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Sequence[Row]]],
) -> Task:
    names = folds_of(study, list(rows))
    if not set(names) <= rows.keys() & registration["studies"].keys():
        raise ValueError("not measured yet")
    every = list(claims.values())
    controls = {claim["control"] for claim in every}
    return Task(
        notebook,
        study,
        tuple(claims),
        every[0]["question"],
        min(claim["margin"] for claim in every),
        every[0]["unit"],
        _clipped(every, registration["studies"][names[0]]["ways"]),
        tuple(_fold(name, registration, rows[name], controls) for name in names),
    )


def _fold(
    name: str,
    registration: Mapping[str, Any],
    rows: Mapping[str, Sequence[Row]],
    controls: Collection[str],
) -> Fold:
    about = registration["studies"][name]
    first = min(row["seed"] for own in rows.values() for row in own)
    if not 0 <= first - registration["first_seed"] < OWN:
        raise ValueError("its rows are not those of its registration")
    if missing := about["ways"].keys() - rows.keys():
        raise ValueError(f"no rows of {', '.join(sorted(missing))}")
    runs = {}
    for way in about["ways"]:
        if way not in controls:
            configurations = {r["configuration"] for r in rows[way] if r["stage"] == "screening"}
            runs[way] = way_runs(rows[way], name, way, size_of(len(configurations)))
    return Fold(about, rows, runs)


def _clipped(claims: Sequence[Mapping[str, Any]], ways: Mapping[str, Sequence[str]]) -> str:
    """The first way that was compared with none; else one that tunes a threshold; else the first.

    Of the comparisons, in their order.
    """
    against_none = [c["first"] for c in claims if c["rival"] == NONE]
    compared = [way for c in claims for way in (c["first"], c["rival"]) if way != NONE]
    tuning = [way for way in compared if "threshold" in ways[way]]
    return str([*against_none, *tuning, *compared][0])
