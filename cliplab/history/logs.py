"""What a history tells other tools' logs: the numbers of a step, by name."""

from __future__ import annotations

import math

from cliplab.history.ring import Ring


def latest(history: Ring, tag: str = "") -> dict[str, float]:
    """Return the numbers of ``History.latest``."""
    return of_step(history, len(history) - 1, tag) if len(history) else {}


def of_step(history: Ring, at: int, tag: str) -> dict[str, float]:
    """The numbers of the step at a position, as ``History.latest`` has them."""
    size, after, limit, factor, clipped, skipped = history.rows[at].double().cpu()
    left_out = bool(skipped.any())
    before = float(size.norm())
    whole = float(after.norm())
    if len(size) == 1:
        times = float(factor)
    else:
        times = whole / before if 0 < before < math.inf else float(before == 0)
    numbers = {"norm_before": before, "norm_after": whole}
    if bool((limit == limit[0]).all()):
        numbers["threshold"] = float(limit[0])
    numbers |= {"factor": 0.0 if left_out else times, "clipped": float(clipped.mean())}
    numbers |= {"skipped": float(left_out)}
    lr, update = float(history.lr[at]), float(history.update_norm[at])
    if not math.isnan(lr):
        numbers |= {"lr": lr, "effective_lr": lr * numbers["factor"]}
    if not math.isnan(update):
        numbers["update_norm"] = update
    return {f"{tag}/{name}" if tag else name: value for name, value in numbers.items()}
