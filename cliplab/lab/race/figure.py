"""The figures of a race's page as coordinates: losses against rates, and what worked where."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cliplab.lab.race.found import works
from cliplab.lab.race.race import NONE, NORM, Raced
from cliplab.lab.report.tables import number

__all__ = ["cloud", "plane"]

LEFT, RIGHT, TOP, BOTTOM = 66.0, 402.0, 10.0, 250.0  # of the axes
FAILED = 26.0  # height of the strip for runs that failed
BEST = 0.7  # share of the height that the best of the losses get


def cloud(raced: Raced) -> dict[str, Any]:
    """Every run: its rate, its test loss; hollow where it chose configurations, filled if fresh."""
    low_lr, high_lr = raced.asked.lr
    low, high = _limits(raced)

    def dot(row: dict[str, Any]) -> dict[str, Any]:
        above = min(row["test_loss"], high)
        y = TOP + FAILED / 2 if row["failed"] else _y(above, low, high)
        if row["failed"]:  # apart by way
            y += 5 if row["way"] == NORM else -5
        return {
            "x": _x(row["lr"], low_lr, high_lr),
            "y": round(y, 1),
            "way": row["way"],
            "kind": "failed"
            if row["failed"]
            else "screened"
            if row["stage"] == "screening"
            else "fresh",
        }

    order = sorted(raced.rows, key=lambda row: row["stage"] != "screening")
    return {
        "dots": [dot(row) for row in order],
        "x_ticks": _decades(low_lr, high_lr),
        "y_ticks": [{"y": _y(v, low, high), "label": number(v)} for v in _nice(low, high)],
        "strip": TOP + FAILED,
        "picks": [],
        **_box(),
    }


def plane(raced: Raced) -> dict[str, Any]:
    """Every configuration of the clipped way: rate and threshold, and how it ended."""
    low_lr, high_lr = raced.asked.lr
    low_c, high_c = raced.asked.threshold
    runs = raced.ways[NORM]
    near = works(raced)
    drawn = {row["configuration"]: row for row in raced.rows if row["way"] == NORM}
    failed = [bool(line.any()) for line in np.isnan(runs.screened_loss)]
    picked = runs.picks()[0] if raced.learned else None
    dots = []
    for i, row in sorted(drawn.items()):
        dots.append(
            {
                "x": _x(row["lr"], low_lr, high_lr),
                "y": _log_y(row["threshold"], low_c, high_c),
                "way": NORM,
                "kind": "failed" if failed[i] else "fresh" if near[i] else "screened",
                "pick": i == picked,
            }
        )
    return {
        "dots": dots,
        "x_ticks": _decades(low_lr, high_lr),
        "y_ticks": [
            {"y": _log_y(v, low_c, high_c), "label": f"{v:g}"} for v in _powers(low_c, high_c)
        ],
        "strip": None,
        "picks": [dot for dot in dots if dot["pick"]],
        **_box(),
    }


def _limits(raced: Raced) -> tuple[float, float]:
    """Of the losses: from the best to the worst, unless that dwarfs what most of them are."""
    ordered = sorted(row["test_loss"] for row in raced.rows if not row["failed"])
    if not ordered:  # around what a run must beat
        line = raced.beaten_from
        return line - (abs(line) or 1.0), line + (abs(line) or 1.0)
    low, most = ordered[0], ordered[int(0.85 * (len(ordered) - 1))]
    high = min(ordered[-1], low + (most - low) / BEST)
    pad = 0.04 * (high - low) or abs(low) or 1.0
    return low - pad, high + pad


def _x(lr: float, low: float, high: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * math.log(lr / low) / math.log(high / low), 1)


def _y(value: float, low: float, high: float) -> float:
    top = TOP + FAILED + 6
    return round(BOTTOM - (BOTTOM - top) * (value - low) / (high - low), 1)


def _log_y(value: float, low: float, high: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * math.log(value / low) / math.log(high / low), 1)


def _decades(low: float, high: float) -> list[dict[str, Any]]:
    return [{"x": _x(v, low, high), "label": f"{v:g}"} for v in _powers(low, high)]


def _powers(low: float, high: float) -> list[float]:
    """A few round numbers of a logarithmic range."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1,) if last - first > 3 else (1, 3) if last - first > 1 else (1, 2, 5)
    found = [float(f"{s}e{p}") for p in range(first, last + 1) for s in steps]
    return [v for v in found if low * 0.999 <= v <= high * 1.001]


def _nice(low: float, high: float) -> list[float]:
    """Three to seven round numbers."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _box() -> dict[str, Any]:
    box = {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
    return {**box, "ways": (NONE, NORM)}
