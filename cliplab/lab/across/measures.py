"""What is measured of a task's ways: how often and how far they clip, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliplab.lab.across.tasks import NONE, Fold, Row, Task, loss_of
from cliplab.lab.claims.comparison import Measured, measure
from cliplab.lab.claims.folds import Ways, over_folds
from cliplab.lab.stats.paired import Estimate
from cliplab.lab.study.space import Space

__all__ = ["against_none", "drawn", "measures", "tuned"]

Floats = NDArray[np.float64]


def measures(task: Task) -> list[dict[str, Any]]:
    """A row a way: its own numbers, and what it differs from not clipping by, where that was run.

    ``gain`` is the loss of none minus the way's own, ``fewer`` and ``wider`` the same of failures
    (none minus own) and of the usable range (own minus none), in decades of the learning rate;
    ``_low`` and ``_high`` are the ends of their 90 % intervals.
    """
    return [
        {
            "arm": f"{task.name}: {way}",
            "task": task.name,
            "model": task.model,
            "optimizer": task.optimizer,
            "way": way,
            "stands_for_clipping": way == task.clipped,
            "claims": ", ".join(task.claims),
            "unit": task.unit,
            "margin": task.margin,
            **_alone(task, way),
            **_differences(task, way),
        }
        for way in task.ways
    ]


def against_none(task: Task, way: str) -> Measured:
    """A way compared with not clipping; over folds where there are some."""
    parts, every = {}, []
    for number, fold in enumerate(task.folds):
        first, rival = fold.runs[way], fold.runs[NONE]
        space = Space.of(fold.about["space"])
        parts[str(number)] = measure(first, rival, (way, NONE), task.margin, space=space)
        every.append(Ways(first, rival, rival))
    return next(iter(parts.values())) if len(parts) == 1 else over_folds(parts, every, task.margin)


def _differences(task: Task, way: str) -> dict[str, Any]:
    if not task.has_none:
        return {}
    measured = against_none(task, task.clipped if way == NONE else way)
    found = {"usable": (measured.levels["usable"] or [None, None])[way == NONE]}
    if way == NONE:
        return found
    for name, estimate in (
        ("gain", measured.loss),
        ("fewer", measured.failures),
        ("wider", measured.usable),
    ):
        found |= _ends(name, estimate)
    return found


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    ends = (None,) * 3 if estimate is None else (estimate.effect, estimate.low, estimate.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _alone(task: Task, way: str) -> dict[str, Any]:
    """What is said of one way: its picks' fresh runs, and all screening runs."""
    runs = [fold.runs[way] for fold in task.folds]
    fresh = [row for fold in task.folds for row in _fresh(fold, way)]
    good = [row for row in fresh if not row["failed"]]
    told = good if way == NONE or any(map(_acts, _all_rows(task, way))) else []
    return {
        "loss": _finite(float(np.mean([loss_of(own) for own in runs]))),
        "runs": len(fresh),
        "failures": len(fresh) - len(good),
        "screened_failures": float(np.mean([np.isnan(own.screened_loss).mean() for own in runs])),
        "clip_fraction": _mean(told, lambda row: row.get("clip_fraction")),
        "factor_mean": _mean(told, lambda row: row.get("factor_mean")),
        "lr": _geometric(good, lambda row: row.get("lr")),
        "norm_tail": _geometric(good, lambda row: _ratio(row, "norm_p99")),
        "norm_peak": _geometric(good, lambda row: _ratio(row, "norm_max")),
        "spike_score": _mean(good, lambda row: row.get("spike_score")),
    }


def _all_rows(task: Task, way: str) -> Iterator[Row]:
    return (row for fold in task.folds for row in fold.rows[way])


def _acts(row: Row) -> bool:
    """Whether a run is said to have clipped: where none of a way's is, its rows do not say."""
    return bool(row.get("clip_fraction")) or row.get("factor_mean") not in (None, 1)


def _fresh(fold: Fold, way: str) -> Iterator[Row]:
    """The runs of the picks that chose nothing: those of finalists, and those of failures."""
    picks = set(fold.runs[way].picks())
    return (
        row
        for row in fold.rows[way]
        if row["stage"] != "screening" and row["configuration"] in picks
    )


def _ratio(row: Row, column: str) -> float | None:
    """A norm over the median one."""
    above, median = row.get(column), row.get("norm_median")
    return above / median if above and median else None


def _mean(rows: Sequence[Row], of: Callable[[Row], float | None]) -> float | None:
    values = [value for row in rows if (value := of(row)) is not None]
    return float(np.mean(values)) if values else None


def _geometric(rows: Sequence[Row], of: Callable[[Row], float | None]) -> float | None:
    mean = _mean(rows, lambda row: math.log(value) if (value := of(row)) else None)
    return None if mean is None else math.exp(mean)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def tuned(task: Task, way: str) -> Floats:
    """How far each fresh run of the picks ends behind the better way's loss, in margins.

    The better of not clipping and ``clipped``; infinite where the run failed.
    """
    found = []
    for fold in task.folds:
        runs = fold.runs[way]
        losses = runs.fresh_loss[runs.places()].ravel()
        found.append(_behind(task, fold, np.concatenate([losses, runs.pick_loss.ravel()])))
    return np.concatenate(found)


def drawn(task: Task, way: str) -> Floats:
    """The same of every screening run: of configurations as they are drawn, not chosen."""
    every = [_behind(task, fold, fold.runs[way].screened_loss.ravel()) for fold in task.folds]
    return np.concatenate(every)


def _behind(task: Task, fold: Fold, losses: Floats) -> Floats:
    return np.where(np.isnan(losses), math.inf, (losses - task.level(fold)) / task.margin)
