"""Drawn surfaces of loss and failures, and the runs of two ways on them, in a study's stages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliplab.lab.claims.comparison import measure
from cliplab.lab.stats.best_of import weights
from cliplab.lab.study.results import WayRuns
from cliplab.lab.study.size import Size
from cliplab.lab.study.space import Linear, Space

__all__ = ["SPACE", "Noise", "Surface", "drawn", "mean_noise", "noise_of", "places", "two_ways"]

Floats = NDArray[np.float64]
Rng = np.random.Generator

SPACE = Space(lr=Linear(0.0, 1.0), threshold=Linear(0.0, 1.0))
CHANCE = 10.0  # margins above the optimum
GRID = (np.stack(np.meshgrid(*[np.arange(32)] * 2, indexing="ij"), -1).reshape(-1, 2) + 0.5) / 32
SETS = 256  # of configurations, over which a surface's own loss is averaged

# What a surface is drawn from where nothing is known of it.
OPTIMUM = (0.3, 0.7)  # place, of each coordinate
CURVATURE = (20.0, 250.0)  # margins at a distance of 1, of each coordinate
GAP = (0.0, 0.6)  # from the optimum to the learning rate above which runs fail
WIDTH = (0.005, 0.05)  # of the way from hardly any failure to all
BASE = (0.0, 0.04)  # share of runs that fail anywhere

SHAPES: dict[str, Callable[[Rng, tuple[int, ...]], Floats]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.standard_exponential(shape) - 1,
    # A tenth of the runs end 3 standard deviations higher.
    "two points": lambda rng, shape: (
        math.sqrt(0.19) * rng.standard_normal(shape) + 3 * ((rng.random(shape) < 0.1) - 0.1)
    ),
}


@dataclass(frozen=True)
class Noise:
    """What makes a comparison hard; None is drawn anew for every study.

    ``sd``: from run to run of a good configuration, in margins. ``failures``: shares of the good
    configurations' runs that fail, of either way. ``chance``: share of all configurations that fail
    for their own sake. ``near``: share of all runs within two margins of their way's best
    configuration. ``shape`` of the noise: normal, skewed or two points.
    """

    sd: float
    failures: tuple[float, float] | None = None
    chance: float | None = None
    near: float | None = None
    shape: str = "normal"

    def __post_init__(self) -> None:
        if not 0 < self.sd < math.inf:
            raise ValueError(f"sd = {self.sd!r}, expected a number of margins above 0")
        shares = [*(self.failures or ()), self.chance or 0.0, self.near or 0.0]
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError(f"{self}: expected shares between 0 and 1")
        if self.shape not in SHAPES:
            raise ValueError(f"shape = {self.shape!r}, expected one of {', '.join(SHAPES)}")


def noise_of(first: WayRuns, rival: WayRuns, margin: float) -> Noise:
    """The noise of a comparison, from the finalists and the screening of a pilot.

    Raises ``ValueError`` if no finalist succeeded twice: there is no spread to plan with.
    """
    spread = measure(first, rival, ("first", "rival"), margin).levels["sd"]
    if not spread:
        raise ValueError("no finalist of the pilot succeeded twice with different losses")
    ways = (first, rival)
    failures = (_failed(first.fresh_loss), _failed(rival.fresh_loss))
    base = min(failures)
    failed = sum(_failed(way.screened_loss) for way in ways) / 2
    chance = max(0.0, (failed - base) / (1 - base))
    near = [
        float((way.screened_loss < min(means) + 2 * margin).mean())
        for way in ways
        if (means := [np.nanmean(x) for x in way.fresh_loss if not np.isnan(x).all()])
    ]
    return Noise(spread / margin, failures, chance, sum(near) / len(near))


def mean_noise(folds: Sequence[Noise]) -> Noise:
    """That of a fold, on average: of variances, and of shares."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    failures = [fold.failures for fold in folds if fold.failures is not None]
    return Noise(
        math.sqrt(sum(fold.sd**2 for fold in folds) / len(folds)),
        (float(np.mean([f[0] for f in failures])), float(np.mean([f[1] for f in failures])))
        if failures
        else None,
        mean([fold.chance for fold in folds]),
        mean([fold.near for fold in folds]),
        folds[0].shape,
    )


def _failed(losses: Floats) -> float:
    return float(np.isnan(losses).mean())


@dataclass(frozen=True)
class Surface:
    """Expected loss and share of failures over the unit square, in margins.

    The loss is a bowl; above the learning rate ``cliff`` runs fail, and a share ``base`` anywhere.
    """

    optimum: tuple[float, float]
    curvature: tuple[float, float]
    cliff: float
    width: float
    base: float
    shift: float = 0.0

    def loss(self, points: Floats) -> Floats:
        """``[..., 2]`` to ``[...]``: shift + curvature . (point - optimum)^2."""
        return self.shift + (points - np.array(self.optimum)) ** 2 @ np.array(self.curvature)

    def failing(self, points: Floats) -> Floats:
        """Share of runs that fail: a logistic step at the cliff above the base."""
        step = 0.5 + 0.5 * np.tanh((points[..., 0] - self.cliff) / (2 * self.width))
        return self.base + (1 - self.base) * step

    def worse(self, shift: float, extra: float) -> Surface:
        """The same with a higher loss everywhere and more failures everywhere."""
        return replace(self, shift=self.shift + shift, base=min(1.0, self.base + extra))

    def level(self, noise: Noise, size: Size, rng: Rng) -> float:
        """Its loss given success of the best of k, what a study of this size estimates.

        The ratio of the expectations of ``sum_r w_r q_r mu_r`` and ``sum_r w_r q_r`` over the
        draws and their screening (here ``SETS`` of them), with each configuration's own q and mu.
        """
        points = _sets(size.configurations)
        scores, _ = _runs(self, points, size.screening, noise, rng)
        order = np.argsort(scores.mean(-1), axis=1, kind="stable")[:, : size.finalists]
        w = weights(size.configurations, size.best_of, size.finalists)
        loss, failing = (np.take_along_axis(f(points), order, 1) for f in (self.loss, self.failing))
        succeeding = (1 - failing) * w
        return float((succeeding * loss).sum() / succeeding.sum())


@cache
def _sets(configurations: int) -> Floats:
    """The draws of many studies, ``[SETS, K, 2]``."""
    return np.array([places(SPACE.draws(configurations, seed)) for seed in range(SETS)])


def places(draws: list[dict[str, Any]]) -> Floats:
    """Draws of the space as points, ``[K, 2]``."""
    return np.array([list(draw.values()) for draw in draws], dtype=float)


def drawn(noise: Noise, rng: Rng) -> Surface:
    """A surface of this noise; both ways fail as the better does: what one has more is effect."""
    first, second = rng.uniform(*OPTIMUM, 2)
    gap, width, base = rng.uniform(*GAP), rng.uniform(*WIDTH), rng.uniform(*BASE)
    curvature = np.exp(rng.uniform(math.log(CURVATURE[0]), math.log(CURVATURE[1]), 2))
    if noise.near is not None:  # an ellipse of this area, 2 margins deep
        known = 2 * math.pi / max(noise.near, 0.01)
        curvature *= known / math.sqrt(curvature[0] * curvature[1])
    if noise.failures is not None:
        base = min(noise.failures)
    found = Surface((first, second), (curvature[0], curvature[1]), first + gap, width, base)
    return found if noise.chance is None else _with_cliff(found, gap, noise.chance)


def _with_cliff(surface: Surface, gap: float, failing: float) -> Surface:
    """With the cliff where this share of configurations fails: beyond it, or too far from the best.

    The optimum moves down with it, to lie below it by the gap if there is room.
    """
    low, high = 0.0, 1 + gap  # of the cliff: every configuration fails, none for its sake
    for _ in range(12):
        cliff = (low + high) / 2
        below = min(surface.optimum[0], cliff - min(gap, 0.8 * cliff))
        found = replace(surface, cliff=cliff, optimum=(below, surface.optimum[1]))
        failed = (cliff < GRID[:, 0]) | (found.loss(GRID) >= CHANCE)
        low, high = (cliff, high) if failed.mean() > failing else (low, cliff)
    return found


def two_ways(
    surfaces: tuple[Surface, Surface], points: Floats, size: Size, noise: Noise, rng: Rng
) -> tuple[WayRuns, WayRuns]:
    """The runs of two ways at the same configurations ``points [K, 2]``, stage by stage."""
    empty = np.empty((0, 0))
    found, starts = [], []
    first, most = (r // size.picks for r in size.runs)
    for surface in surfaces:
        way = WayRuns(
            size, *_runs(surface, points, size.screening, noise, rng), empty, empty, empty
        )
        score, loss = _runs(surface, points[way.ranked()], size.fresh, noise, rng)
        way = replace(way, fresh_score=score, fresh_loss=loss)
        starts.append(_runs(surface, points[way.picks()], first, noise, rng)[1])
        found.append(way)
    if np.isnan(starts).any():
        more = [
            _runs(surface, points[way.picks()], most - first, noise, rng)[1]
            for surface, way in zip(surfaces, found, strict=True)
        ]
        starts = [np.concatenate(both, axis=1) for both in zip(starts, more, strict=True)]
    if first:
        found = [replace(way, pick_loss=loss) for way, loss in zip(found, starts, strict=True)]
    return found[0], found[1]


def _runs(
    surface: Surface, points: Floats, n: int, noise: Noise, rng: Rng
) -> tuple[Floats, Floats]:
    """Scores (chance where a run failed) and losses (NaN there) of n runs of each point."""
    shape = (*points.shape[:-1], n)
    loss = surface.loss(points)[..., None] + noise.sd * SHAPES[noise.shape](rng, shape)
    failed = (rng.random(shape) < surface.failing(points)[..., None]) | (loss >= CHANCE)
    return np.where(failed, CHANCE, loss), np.where(failed, np.nan, loss)
