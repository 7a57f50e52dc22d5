"""What a threshold costs that is taken from a rule, and not tuned: estimated from screening runs.

A user who takes the threshold from a rule still tries a few configurations of all the rest. They
are drawn among the screened ones whose threshold lies near the rule's, within a factor of two say.
The best of them on one seed is scored on the others, failures at chance. How far that is behind
the task's tuned loss (of the better of clipping and not clipping) is the regret.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliplab.lab.across.tasks import NONE, Fold, Task
from cliplab.lab.stats.best_of import best_of

__all__ = ["Regret", "recipe_thresholds", "regret", "regret_near", "regret_of_recipe"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
NINETY = 1.2816 / 2.3263  # where the 0.9 quantile lies between median and 0.99, of normal logs
NEIGHBOURS = 3  # unclipped configurations whose norms the recipe's short run is taken from


class Regret(NamedTuple):
    """In margins, with its standard error; ``n``: configurations that it was estimated from."""

    effect: float
    error: float
    n: int


def regret(task: Task, way: str, tried: int) -> Regret | None:
    """Of a way that tries so few configurations, drawn from its whole space."""
    return _regret(
        task, way, [np.ones(len(f.runs[way].screened_score), bool) for f in task.folds], tried
    )


def regret_near(task: Task, threshold: float, tried: int, near: float) -> Regret | None:
    """Of one threshold for every task; None: the clipped way tunes none, or too few are near."""
    return _at(
        task,
        [np.full(len(_column(f, task.clipped, "threshold")), threshold) for f in task.folds],
        tried,
        near,
    )


def regret_of_recipe(task: Task, tried: int, near: float) -> Regret | None:
    """Of the recipe: each learning rate has a threshold of its own (:func:`recipe_thresholds`)."""
    if not task.has_none:
        return None
    return _at(task, [recipe_thresholds(fold, task.clipped) for fold in task.folds], tried, near)


def recipe_thresholds(fold: Fold, way: str) -> Floats:
    """What the recipe would take at each configuration's learning rate, ``[K]``.

    It takes the 0.9 quantile of the norms of a short unclipped run at a tenth of the rate. Here it
    is read off the unclipped runs at the rates nearest to that tenth: between their median and
    their 0.99 quantile, on a logarithmic scale. NaN without rates or norms.
    """
    rates, unclipped = _column(fold, way, "lr"), _column(fold, NONE, "lr")
    median, p99 = (_column(fold, NONE, f"norm_{name}") for name in ("median", "p99"))
    with np.errstate(invalid="ignore", divide="ignore"):
        quantile = np.log(median) + NINETY * np.log(p99 / median)
        apart = np.abs(np.log(unclipped)[None] - np.log(rates / 10)[:, None])
    apart[:, ~np.isfinite(quantile)] = math.inf
    nearest = np.argsort(apart, axis=1, kind="stable")[:, :NEIGHBOURS]
    return np.exp(quantile[nearest].mean(1))


def _at(task: Task, wanted: Sequence[Floats], tried: int, near: float) -> Regret | None:
    """Of the clipped way's configurations whose threshold is the wanted one, or near it."""
    masks = []
    for fold, limits in zip(task.folds, wanted, strict=True):
        if "threshold" not in fold.about["ways"][task.clipped]:
            return None
        apart = np.abs(np.log(_column(fold, task.clipped, "threshold") / limits))
        masks.append(apart <= math.log(near))  # NaN is not <=
    return _regret(task, task.clipped, masks, tried)


def _column(fold: Fold, way: str, name: str) -> Floats:
    """A column of the screening runs by configuration, ``[K]``: the geometric mean over seeds."""
    values = np.full(len(fold.runs[way].screened_score), math.nan)
    logs: dict[int, list[float]] = {}
    for row in fold.rows[way]:
        if row["stage"] == "screening" and (value := row.get(name)) and 0 < value < math.inf:
            logs.setdefault(row["configuration"], []).append(math.log(value))
    for configuration, own in logs.items():
        values[configuration] = math.exp(np.mean(own))
    return values


def _regret(task: Task, way: str, masks: Sequence[Mask], tried: int) -> Regret | None:
    """The mean over folds; the error is a jackknife over configurations."""
    n = min(int(mask.sum()) for mask in masks)
    if n < 2 * tried:
        return None
    effects, variances = [], []
    for fold, mask in zip(task.folds, masks, strict=True):
        score, loss = _at_chance(fold, way)
        own = np.flatnonzero(mask)
        effects.append(_best(score[own], loss[own], tried) - task.level(fold))
        dropped = np.array(
            [_best(score[r], loss[r], tried) for r in (np.delete(own, i) for i in range(len(own)))]
        )
        variances.append((len(own) - 1) * dropped.var())
    scale = task.margin
    error = math.sqrt(sum(variances)) / len(variances)
    return Regret(float(np.mean(effects)) / scale, error / scale, n)


def _best(score: Floats, loss: Floats, tried: int) -> float:
    return float(best_of(score, loss, tried)[-1])


def _at_chance(fold: Fold, way: str) -> tuple[Floats, Floats]:
    """Validation and test losses of the screening runs; failed runs score chance."""
    runs = fold.runs[way]
    return runs.screened_score, np.where(
        np.isnan(runs.screened_loss), fold.about["chance"], runs.screened_loss
    )
