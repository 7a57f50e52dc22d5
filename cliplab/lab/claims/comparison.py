"""What a study says about two of its ways: loss, failures, control, edges, usable range.

Makes numbers: yes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliplab.lab.stats.best_of import Ranked, best_of, loss_difference, usable_range
from cliplab.lab.stats.paired import Estimate
from cliplab.lab.stats.shares import boschloo, difference_interval
from cliplab.lab.study.results import WayRuns
from cliplab.lab.study.space import Space

__all__ = ["Measured", "in_decades", "measure", "ranked", "tried", "working"]

Floats = NDArray[np.float64]
OUTER, FIFTH = 0.1, 0.2  # of a coordinate: where a pick, and where most of the best, lie at an edge


@dataclass(frozen=True)
class Measured:
    """Both primaries of a comparison, and what may withhold its verdict.

    Effects are signed so that positive speaks for the first way. ``loss`` is None where a way
    hardly ever succeeds. ``left_out``: the difference of failure shares without the worse way's
    most failing pick and the better way's least failing one.
    """

    loss: Estimate | None
    failures: Estimate
    left_out: float
    control: Estimate | None = None
    edges: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    usable: Estimate | None = None
    levels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def p(self) -> float:
        """Of the comparison: twice the smaller p of its two primaries."""
        of_loss = 1.0 if self.loss is None else self.loss.p
        return min(1.0, 2 * min(of_loss, self.failures.p))


def measure(
    first: WayRuns,
    rival: WayRuns,
    names: tuple[str, str],
    margin: float,
    *,
    handicapped: WayRuns | None = None,
    space: Space | None = None,
    tuned: Mapping[str, list[str]] | None = None,
    draws: list[dict[str, Any]] | None = None,
) -> Measured:
    """Compare two ways of a study; ``handicapped`` is the control's rival.

    ``draws`` are the configurations (with ``space``, and what each way ``tuned``): without them
    there is no look at edges, and the usable range is a share.
    """
    size = first.size
    n, k = size.configurations, size.best_of
    of_first, of_rival = ranked(first), ranked(rival)
    loss = loss_difference(of_first, of_rival, n, k)
    levels = [
        level if math.isfinite(level := way.loss(n, k)) else None for way in (of_first, of_rival)
    ]
    failures, left_out, counts = _failures(first, rival)
    control = None
    if handicapped is not None:
        control = loss_difference(of_first, ranked(handicapped), n, k)
    decades = _decades(space)
    shares = working(first, rival, levels, margin)
    usable, ranges = in_decades(*shares, decades) if shares else (None, [])
    ways = dict(zip(names, (first, rival), strict=True))
    edges: list[str] = []
    if space and draws and tuned and size.decides:
        for name, way in ways.items():
            edges += [f"{name}: {edge}" for edge in _edges(way, space, tuned[name], draws)]
    notes = _better_pick(rival, margin)
    return Measured(
        loss,
        failures,
        left_out,
        control,
        tuple(edges),
        tuple(f"{names[1]}: {note}" for note in notes),
        usable,
        {
            "loss": levels,
            "sd": _spread(first, rival),
            "failures": counts,
            "left_out": left_out,
            "usable": ranges,
            "decades": decades,
        },
    )


def ranked(way: WayRuns) -> Ranked:
    """The finalists with their fresh losses."""
    return Ranked(tuple(way.ranked()), way.fresh_loss)


def tried(way: WayRuns) -> list[float]:
    """Expected loss of the best of k screened configurations, k = 1 ..; failures at chance."""
    losses = np.where(np.isnan(way.screened_loss), way.screened_score.max(), way.screened_loss)
    found: list[float] = best_of(way.screened_score, losses, way.size.best_of).tolist()
    return found


def _spread(first: WayRuns, rival: WayRuns) -> float | None:
    """Run-to-run standard deviation of the finalists' successful runs, of both ways."""
    lines = [line[~np.isnan(line)] for way in (first, rival) for line in way.fresh_loss]
    lines = [line for line in lines if len(line) > 1]
    return float(np.sqrt(np.mean([line.var(ddof=1) for line in lines]))) if lines else None


def _failures(
    first: WayRuns, rival: WayRuns
) -> tuple[Estimate, float, list[tuple[int, int, list[int]]]]:
    """Failure shares over the picks: their difference, that with one pick left out, the counts.

    Two ways that did not fail in the first runs were not extended for each other: then p is 1.
    """
    failed = [_pick_failures(way) for way in (first, rival)]
    start = first.size.runs[0] // first.size.picks
    if start and not any(f[:, :start].any() for f in failed):
        failed = [f[:, :start] for f in failed]
    (x, n), (y, m) = ((int(f.sum()), f.size) for f in failed)
    low, high = difference_interval(y, m, x, n)
    stopped = failed[0].shape[1] <= start or not first.size.runs[1]
    p = 1.0 if stopped else boschloo(y, m, x, n)
    shares = [f.mean(1) for f in failed]
    worse, better = (shares[0], shares[1]) if x / n > y / m else (shares[1], shares[0])
    left = float(np.sort(worse)[:-1].mean() - np.sort(better)[1:].mean())
    counts = [(int(f.sum()), f.size, f.sum(1).tolist()) for f in failed]
    effect = y / m - x / n
    return Estimate(effect, low, high, p, n + m), (left if effect >= 0 else -left), counts


def _pick_failures(way: WayRuns) -> NDArray[np.bool_]:
    """Failures of the picks, ``[picks, runs]``, of their fresh runs where no stage counts them."""
    return way.failed if way.failed.size else np.isnan(way.fresh_loss[way.places()])


def _decades(space: Space | None) -> float | None:
    rate = space.coordinates.get("lr") if space else None
    return rate.decades if rate else None


def in_decades(
    of_first: Floats, of_rival: Floats, decades: float | None
) -> tuple[Estimate, list[float]]:
    """Usable ranges in decades of the learning rate: their difference, and each; from shares."""
    estimate = usable_range(of_first, of_rival)
    scale = decades or 1.0
    effect, low, high = (scale * v for v in (estimate.effect, estimate.low, estimate.high))
    scaled = Estimate(effect, low, high, estimate.p, estimate.n)
    return scaled, [scale * float(share.mean()) for share in (of_first, of_rival)]


def working(
    first: WayRuns, rival: WayRuns, levels: Sequence[float | None], margin: float
) -> tuple[Floats, Floats] | None:
    """Shares ``[K]`` of screening runs that succeed within 2 margins of the better way's loss."""
    known = [level for level in levels if level is not None]
    if not known:
        return None
    line = min(known) + 2 * margin
    of_first, of_rival = ((way.screened_loss <= line).mean(1) for way in (first, rival))
    return of_first, of_rival  # NaN is not <=


def _edges(way: WayRuns, space: Space, tuned: list[str], draws: list[dict[str, Any]]) -> list[str]:
    """Coordinates at whose closed end the top pick lies, and most of the best screened ones too."""
    best = np.argsort(way.screened_score.mean(1), kind="stable")[: len(draws) // 6]
    found = []
    for name in tuned:
        coordinate = space.coordinates[name]
        places = np.array([coordinate.place(draw[name]) for draw in draws])
        top = places[way.picks()[0]]
        for end, closed, far in (
            ("low", not coordinate.open_low, places),
            ("high", not coordinate.open_high, 1 - places),
        ):
            at_top = top if end == "low" else 1 - top
            if closed and at_top < OUTER and int((far[best] < FIFTH).sum()) >= 0.6 * len(best):
                found.append(f"{name} at its {end} end")
    return found


def _better_pick(way: WayRuns, margin: float) -> list[str]:
    """A note where another pick is better than the best chosen by more than a margin."""
    from scipy.stats import ttest_ind

    start = way.size.runs[0] // way.size.picks
    if not start or not way.pick_loss.size:
        return []
    lines = [line[:start] for line in way.pick_loss]
    top, found = lines[0][~np.isnan(lines[0])], []
    for place, line in enumerate(lines[1:], 2):
        other = line[~np.isnan(line)]
        if len(other) < max(len(top), 2) or len(top) < 2 or top.mean() - other.mean() <= margin:
            continue
        if max(top.std(), other.std()) == 0:
            p = 0.0
        else:
            p = ttest_ind(top - margin, other, equal_var=False, alternative="greater").pvalue
        if p < 0.0125:
            found.append(f"pick {place} is better than the first by more than a margin")
    return found
