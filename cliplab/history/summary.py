"""A history in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cliplab.history.ring import Ring


def summarise(history: Ring) -> dict[str, Any]:
    """Return the numbers of ``History.summary``."""
    norms = history.total.cpu()
    finite = norms[norms.isfinite()].double()
    p50, p90, p99 = quantiles(finite, (0.5, 0.9, 0.99))
    skipped, nonfinite = history.skipped.cpu(), history.nonfinite.cpu()
    summary: dict[str, Any] = {
        "steps": len(history),
        "first_step": history.first_step,
        "clip_fraction": _mean(history.clipped),
        "skipped": int(_any_part(skipped).sum()),
        "nonfinite": int(_any_part(nonfinite).sum()),
        "norm_median": p50,
        "norm_p90": p90,
        "norm_p99": p99,
        "norm_max": float(finite.max()) if len(finite) else math.nan,
        "threshold_median": quantiles(history.threshold.cpu().flatten().double(), (0.5,))[0],
        "factor_mean": _mean(history.factor),
        "lr_mean": _mean(history.lr),
        "effective_lr_mean": _mean(history.effective_lr),
    }
    if history.measures_updates:
        norms = history.update_norm
        summary["update_norm_median"] = quantiles(norms, (0.5,))[0]
        summary["update_norm_max"] = float(norms[~norms.isnan()].max())
    if not history.scalar and len(history):
        shares = history.clip_fraction.tolist()
        summary["clip_fraction_by_part"] = dict(zip(history.part_names, shares, strict=True))
    return summary


def quantiles(values: Tensor, orders: Sequence[float]) -> list[float]:
    """Return quantiles of the values that are not NaN, of any number of values (the lower one)."""
    ordered = values[~values.isnan()].sort().values
    if not len(ordered):
        return [math.nan] * len(orders)
    return [float(ordered[int(order * (len(ordered) - 1))]) for order in orders]


def _mean(values: Tensor) -> float:
    return float(values.double().nanmean()) if values.numel() else math.nan


def _any_part(flags: Tensor) -> Tensor:
    return flags if flags.ndim == 1 else flags.any(dim=1)
