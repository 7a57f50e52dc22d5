"""Limits that stand still, or follow the weights or the learning rate."""

from __future__ import annotations

import math
from typing import Any

from cliplab.methods.method import method
from cliplab.thresholds import RMS, AfterWarmup, Fixed, RateScaled, WeightRatio


@method("-")
def none() -> dict[str, Any]:
    """Measure only, never clip."""
    return {"threshold": Fixed(math.inf)}


@method("Mikolov 2012; torch clip_grad_value_")
def value(threshold: float = 1.0) -> dict[str, Any]:
    """Clamp every entry to [-c, c]."""
    return {"threshold": threshold, "scope": "element"}


@method("Pascanu, Mikolov, Bengio 2013; torch clip_grad_norm_")
def norm(threshold: float = 1.0) -> dict[str, Any]:
    """Scale the whole gradient to norm c when it is larger."""
    return {"threshold": threshold}


@method("Hazan, Levy, Shalev-Shwartz 2015 (SNGD); Cutkosky, Mehta 2020")
def normalise(threshold: float = 1.0) -> dict[str, Any]:
    """Scale the whole gradient to norm c, whether it is larger or smaller."""
    return {"threshold": threshold, "mode": "normalise"}


@method("tf.clip_by_norm; Keras clipnorm")
def tensor_norm(threshold: float = 1.0) -> dict[str, Any]:
    """Scale every tensor's gradient to norm c when it is larger."""
    return {"threshold": threshold, "scope": "tensor"}


@method("Shazeer, Stern 2018 (Adafactor); optax clip_by_block_rms")
def block_rms(threshold: float = 1.0) -> dict[str, Any]:
    """Scale every tensor's gradient to root mean square d when it is larger."""
    return {"threshold": RMS(threshold), "scope": "tensor"}


@method("Brock, De, Smith, Simonyan 2021 (NFNets)")
def agc(ratio: float = 0.01, eps: float = 1e-3) -> dict[str, Any]:
    """Hold every unit's gradient to a share of its weights' norm (leave the last layer out)."""
    return {"threshold": WeightRatio(ratio, eps), "scope": "unit"}


@method("Hafner et al. 2023 (DreamerV3), code")
def agc_tensor(ratio: float = 0.3, eps: float = 1e-3) -> dict[str, Any]:
    """Hold every tensor's gradient to a share of its weights' norm."""
    return {"threshold": WeightRatio(ratio, eps), "scope": "tensor"}


@method("OLMo-1 grad_clip_warmup_steps and _factor, code")
def warmup_tight(threshold: float = 1.0, steps: int = 1000, factor: float = 10.0) -> dict[str, Any]:
    """Clip the norm at factor times c in the first steps, then at c."""
    return {"threshold": AfterWarmup(threshold, steps, until=Fixed(factor * threshold))}


@method("Megatron-LM grad_norm_skip_threshold, code")
def skip_threshold(threshold: float = math.inf) -> dict[str, Any]:
    """Skip steps whose norm is above c."""
    return {"threshold": threshold, "mode": "skip"}


@method("Wu 2019 (KataGo), code")
def katago(
    threshold: float = 5500.0, batch: int = 256, rate: float | None = None
) -> dict[str, Any]:
    """Clip the norm at c sqrt(batch / 256) / sqrt(lr / rate), by default of the first lr."""
    return {"threshold": RateScaled(threshold * math.sqrt(batch / 256), rate)}
