"""The runs of a study that a claim speaks of, found among the rows of a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cliplab.lab.claims.comparison import Measured, measure, tried
from cliplab.lab.claims.folds import Ways, folds_of, over_folds
from cliplab.lab.claims.ledger import Claim
from cliplab.lab.study.results import way_runs
from cliplab.lab.study.size import Size, size_of
from cliplab.lab.study.space import Space

__all__ = ["MissingRowsError", "measured_of", "ways_of"]

Row = Mapping[str, Any]
About = Mapping[str, Any]  # Study.about()
ODD = (AttributeError, IndexError, KeyError, TypeError)  # of rows that no study gave


class MissingRowsError(ValueError):
    """The rows hold none of a study or arm of the claim."""


def measured_of(
    claim: Claim, rows: Sequence[Row], studies: Mapping[str, About]
) -> tuple[Measured, Size]:
    """What the two ways of a claim come to, and how large their study was.

    Where its study has folds: the mean over them. ``ValueError``: runs are missing, or the rows are
    not those of a study.
    """
    try:
        ways = ways_of(claim, rows, studies)
        parts = {
            name: _measured(claim, rows, name, own, studies.get(name)) for name, own in ways.items()
        }
        every = list(ways.values())
        first = next(iter(parts.values()))
        measured = first if len(parts) == 1 else over_folds(parts, every, claim.margin)
        described = {
            "best_of": [
                np.mean([tried(way) for way in folds], axis=0).tolist()
                for folds in zip(*((w.first, w.rival) for w in every), strict=True)
            ]
        }
    except ODD as error:
        raise ValueError(f"claim {claim.id}: {claim.study!r} is no study: {error!r}") from None
    return replace(measured, levels={**measured.levels, **described}), every[0].first.size


def _measured(
    claim: Claim, rows: Sequence[Row], study: str, ways: Ways, about: About | None
) -> Measured:
    given: dict[str, Any] = {}
    if about:
        draws = _draws(claim, rows, study, about, ways.first.size)
        given = {"space": Space.of(about["space"]), "tuned": about["ways"], "draws": draws}
    names = (claim.first, claim.rival)
    return measure(
        ways.first, ways.rival, names, claim.margin, handicapped=ways.handicapped, **given
    )


def ways_of(claim: Claim, rows: Sequence[Row], studies: Mapping[str, About]) -> dict[str, Ways]:
    """The runs of a claim's first way, its rival and its control, by study: several are folds.

    ``ValueError``: some of them are missing, or the folds are of unlike size.
    """
    names = [row["study"] for row in rows if isinstance(row.get("study"), str)]
    found = {
        study: _ways(claim, rows, study, studies.get(study))
        for study in folds_of(claim.study, names)
    }
    if len({ways.first.size for ways in found.values()}) > 1:
        raise ValueError(f"claim {claim.id}: the folds of {claim.study!r} are of unlike size")
    return found


def _ways(claim: Claim, rows: Sequence[Row], study: str, about: About | None) -> Ways:
    own = [row for row in rows if row.get("study") == study]
    screened: dict[str, set[int]] = {}
    for row in own:
        if row["stage"] == "screening":
            screened.setdefault(row["way"], set()).add(row["configuration"])
    handicaps = about["handicaps"] if about else _handicap(claim, screened)
    of = handicaps.get(claim.control)
    needed = (claim.first, claim.rival, of or claim.control)
    if missing := [way for way in needed if way not in screened]:
        names = ", ".join(map(repr, dict.fromkeys(missing)))
        raise MissingRowsError(f"claim {claim.id}: no rows of {names} in study {study!r}")
    for row in own:
        for prefix in ("", "early_") if row["way"] == of else ("",):
            for column in (f"{prefix}score", f"{prefix}test_loss"):
                if not _is_finite(value := row.get(column)):
                    raise ValueError(f"{row['arm']}, seed {row['seed']}: {column} = {value!r:.60}")
    size = size_of(len(screened[claim.first]))
    return Ways(
        way_runs(own, study, claim.first, size),
        way_runs(own, study, claim.rival, size),
        way_runs(own, study, claim.control, size, of=of),
    )


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e300  # NaN is not


def _draws(
    claim: Claim, rows: Sequence[Row], study: str, about: About, size: Size
) -> list[dict[str, Any]]:
    """The configurations: what each has of all that the two ways tune."""
    draws: list[dict[str, Any]] = [{} for _ in range(size.configurations)]
    for row in rows:
        if row.get("study") == study and row["way"] in (claim.first, claim.rival):
            tuned = about["ways"][row["way"]]
            draws[int(row["configuration"])] |= {name: row[name] for name in tuned}
    return draws


def _handicap(claim: Claim, screened: Mapping[str, Any]) -> dict[str, str]:
    """Without the study's word: a control without runs is the rival's earlier checkpoint."""
    return {} if claim.control in screened else {claim.control: claim.rival}
