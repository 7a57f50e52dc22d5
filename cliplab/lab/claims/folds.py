"""A comparison over several folds, each of which chooses for itself: the mean over them.

A fold is a study of its own (``"walk: 2007"`` is one of ``"walk"``): it ranks its configurations by
its own validation loss. All folds have the same configurations.

Makes numbers: yes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cliplab.lab.claims.comparison import Measured, in_decades, ranked, working
from cliplab.lab.stats.best_of import mean_difference
from cliplab.lab.stats.paired import Estimate
from cliplab.lab.study.results import WayRuns

__all__ = ["Ways", "folds_of", "over_folds"]


class Ways(NamedTuple):
    """The runs of a claim's two ways and of its control, in one study."""

    first: WayRuns
    rival: WayRuns
    handicapped: WayRuns


def folds_of(study: str, names: Sequence[str]) -> list[str]:
    """The studies that a claim's study stands for: its folds, or itself.

    >>> folds_of("walk", ["walk: 2007", "walk: 2010", "walking"]), folds_of("cosine", ["cosine"])
    (['walk: 2007', 'walk: 2010'], ['cosine'])
    """
    folds = [name for name in dict.fromkeys(names) if name.startswith(f"{study}: ")]
    return folds if folds and study not in names else [study]


def over_folds(parts: Mapping[str, Measured], ways: Sequence[Ways], margin: float) -> Measured:
    """The mean of what every fold has measured; an edge in one of them is one of the comparison.

    Loss and control: the jackknife drops a configuration from all folds at once. Failures: the mean
    difference of shares with the interval that those of the folds make together (independent runs:
    squared distances add up), and the folds' smallest p, times their number.
    """
    every = list(parts.values())
    size = ways[0].first.size
    n, k = size.configurations, size.best_of
    return Measured(
        mean_difference([(ranked(w.first), ranked(w.rival)) for w in ways], n, k),
        _mean_of_shares([part.failures for part in every]),
        float(np.mean([part.left_out for part in every])),
        mean_difference([(ranked(w.first), ranked(w.handicapped)) for w in ways], n, k),
        tuple(f"{name}, {edge}" for name, part in parts.items() for edge in part.edges),
        tuple(f"{name}, {note}" for name, part in parts.items() for note in part.notes),
        **_usable(every, ways, margin),
    )


def _mean_of_shares(folds: Sequence[Estimate]) -> Estimate:
    """Source: Zou & Donner 2008 (doi:10.1002/sim.3095): limits recovered from each part's own."""
    f = len(folds)
    effect = sum(fold.effect for fold in folds) / f
    below = math.hypot(*(fold.effect - fold.low for fold in folds)) / f
    above = math.hypot(*(fold.high - fold.effect for fold in folds)) / f
    p = min(1.0, f * min(fold.p for fold in folds))
    return Estimate(effect, effect - below, effect + above, p, sum(fold.n for fold in folds))


def _usable(every: Sequence[Measured], ways: Sequence[Ways], margin: float) -> dict[str, Any]:
    """The mean usable range, and the levels of the folds together."""
    levels = [part.levels for part in every]
    losses = np.array([level["loss"] for level in levels], dtype=float)  # None: NaN
    spreads = [level["sd"] for level in levels if level["sd"]]
    found: dict[str, Any] = {
        "loss": [float(x) if math.isfinite(x) else None for x in losses.mean(0)],
        "sd": float(np.sqrt(np.mean(np.square(spreads)))) if spreads else None,
        "failures": [_counts([level["failures"][i] for level in levels]) for i in (0, 1)],
        "left_out": float(np.mean([part.left_out for part in every])),
        "usable": [],
        "decades": levels[0]["decades"],
    }
    shares = []
    for way, level in zip(ways, levels, strict=True):
        own = working(way.first, way.rival, level["loss"], margin)
        if own is None:
            return {"usable": None, "levels": found}
        shares.append(own)
    of_first, of_rival = np.mean(shares, axis=0)
    usable, found["usable"] = in_decades(of_first, of_rival, found["decades"])
    return {"usable": usable, "levels": found}


def _counts(folds: Sequence[tuple[int, int, list[int]]]) -> tuple[int, int, list[int]]:
    """Failed, runs and failures by pick, of all folds together."""
    picks = np.sum([fold[2] for fold in folds], axis=0)
    return sum(fold[0] for fold in folds), sum(fold[1] for fold in folds), picks.tolist()
