"""What a study found of one way, read back from its rows, and how it chooses among configurations.

Only screening ranks the finalists, only fresh seeds score them: no run does both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliplab.lab.study.size import Size

__all__ = ["WayRuns", "way_runs"]

Floats = NDArray[np.float64]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class WayRuns:
    """The runs of one way as arrays; losses are NaN where a run failed.

    K configurations, S screening seeds, m finalists (best first), n fresh seeds, 3 picks.
    """

    size: Size
    screened_score: Floats  # [K, S] validation, chance where it failed
    screened_loss: Floats  # [K, S] test
    fresh_score: Floats  # [m, n]; empty before that stage
    fresh_loss: Floats  # [m, n]
    pick_loss: Floats  # [picks, R / 3] test; empty before that stage

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Which runs of the picks failed: ``[picks, R / 3]``."""
        return np.isnan(self.pick_loss)

    def ranked(self) -> list[int]:
        """The m best configurations by mean validation over the screening seeds, best first."""
        return _best(self.screened_score.mean(1), self.size.finalists)

    def places(self) -> list[int]:
        """The picks by their places among the finalists: best mean over all S + n seeds."""
        ranked = self.ranked()
        both = np.concatenate([self.screened_score[ranked], self.fresh_score], axis=1)
        return _best(both.mean(1), self.size.picks)

    def picks(self) -> list[int]:
        """The picks, best first."""
        ranked = self.ranked()
        return [ranked[place] for place in self.places()]


def _best(scores: Floats, n: int) -> list[int]:
    return [int(i) for i in np.argsort(scores, kind="stable")[:n]]


def way_runs(
    rows: Iterable[Row], study: str, way: str, size: Size, of: str | None = None
) -> WayRuns:
    """The runs of a way, from all rows of a notebook; ``ValueError`` if some are missing.

    ``of``: the way whose runs these are at their earlier checkpoint.
    """
    prefix = "early_" if of else ""
    stages: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.get("study") == study and row.get("way") == (of or way):
            stages[row["stage"]][row["configuration"]].append(row)
    screened = [stages["screening"][i] for i in range(size.configurations)]
    score, loss = _columns(screened, size.screening, prefix, f"{study}: {way}, screening")
    none = np.empty((0, 0))
    found = WayRuns(size, score, loss, none, none, none)
    if not stages["finalists"]:
        return found
    finalists = [stages["finalists"][i] for i in found.ranked()]
    score, loss = _columns(finalists, size.fresh, prefix, f"{study}: {way}, finalists")
    found = replace(found, fresh_score=score, fresh_loss=loss)
    if of or not stages["failures"]:
        return found
    picks = [stages["failures"][i] for i in found.picks()]
    each = len(picks[0])
    if each not in [r // size.picks for r in size.runs]:
        raise ValueError(f"{study}: {way}: {each} runs of a pick, expected those of {size.runs}")
    _, loss = _columns(picks, each, prefix, f"{study}: {way}, failures")
    return replace(found, pick_loss=loss)


def _columns(groups: list[list[Row]], n: int, prefix: str, what: str) -> tuple[Floats, Floats]:
    """Scores and losses (NaN where failed), a line each configuration, by seed."""
    if wrong := {len(group) for group in groups} - {n}:
        raise ValueError(f"{what}: {sorted(wrong)[0]} runs of a configuration, expected {n}")
    lines = [sorted(group, key=lambda row: row["seed"]) for group in groups]
    if any(len({row["seed"] for row in line}) < n for line in lines):
        raise ValueError(f"{what}: a configuration has a seed twice")
    failed = np.array([[bool(row[f"{prefix}failed"]) for row in line] for line in lines])
    score = np.array([[float(row[f"{prefix}score"]) for row in line] for line in lines])
    loss = np.array([[float(row[f"{prefix}test_loss"]) for row in line] for line in lines])
    return score, np.where(failed, np.nan, loss)
