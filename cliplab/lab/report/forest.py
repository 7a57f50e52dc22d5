"""The forest plot: differences in loss with their intervals, in margins, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

from cliplab.lab.claims.verdict import Verdict
from cliplab.lab.report import tables

MOST = 6.0  # margins to each side
EDGE = 4.0  # percent of the width, for arrows


def forest(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Its rows, and where they stand: in percent of the width, which is any."""
    shown = [
        (v, v.loss.low / v.margin, v.loss.effect / v.margin, v.loss.high / v.margin)
        for v in verdicts
        if v.margin and v.loss is not None
    ]
    widest = max((max(-low, high) for _, low, _, high in shown), default=2.0)
    limit = ceil(min(MOST, max(2.0, widest)))

    def x(margins: float) -> float:
        inside = max(-limit, min(limit, margins))
        return round(EDGE + (100 - 2 * EDGE) * (inside + limit) / (2 * limit), 2)

    rows: list[dict[str, Any]] = [
        {
            "verdict": v,
            "x": x(effect),
            "low": x(low),
            "high": x(high),
            "cut_low": low < -limit,
            "cut_high": high > limit,
            "effect": tables.effect(v.loss, v.unit),
        }
        for v, low, effect, high in shown
    ]
    told = {row["verdict"].id for row in rows}
    return {
        "rows": rows,
        "left_out": [v.id for v in verdicts if v.margin and v.id not in told],
        "margin": (x(-1), round(x(1) - x(-1), 2)),
        "zero": x(0),
        "ticks": [{"x": x(t), "label": tables.number(t)} for t in range(-limit, limit + 1)],
    }
