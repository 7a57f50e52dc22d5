"""Limits of what an optimizer does to the weights: of its update, over the learning rate.

A weight decay that is decoupled from the gradient is no part of the update.
"""

from __future__ import annotations

from typing import Any

from cliplab.methods.method import method
from cliplab.thresholds import RMS, Deviations, Surprise, TrustRatio


@method("Shazeer, Stern 2018 (Adafactor)")
def update_rms(threshold: float = 1.0) -> dict[str, Any]:
    """Scale every tensor's update to root mean square d when it is larger."""
    return {"threshold": RMS(threshold), "scope": "tensor", "target": "update"}


@method("Wortsman et al. 2023 (StableAdamW)")
def stable_adamw() -> dict[str, Any]:
    """Divide every tensor's update by the root mean square of g / sqrt(v) when that is above 1."""
    return {"threshold": Surprise(), "scope": "tensor", "target": "update"}


@method("levanter clip_update_norm, code")
def update_history(k: float = 3.0, window: int = 128, warmup: int = 64) -> dict[str, Any]:
    """Clip the update's norm k standard deviations above the mean of its last norms."""
    return {"threshold": Deviations(k, window, warmup), "target": "update"}


@method("You et al. 2020 (LAMB), clipped as in timm's trust_clip")
def lamb_trust(ratio: float = 1.0) -> dict[str, Any]:
    """Hold every tensor's update to its weights' norm; weights of norm 0 are free."""
    return {"threshold": TrustRatio(ratio), "scope": "tensor", "target": "update"}
