"""Limits that follow the past: of sizes, of losses, of every entry."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

from cliplab.methods.method import method
from cliplab.thresholds import (
    AGGC,
    EMA,
    AdaNorm,
    Bounded,
    Decay,
    EntryDeviations,
    GradientStabilizer,
    LossRatio,
    MovingAverage,
    Percentile,
    Queue,
    RobustSpike,
    SpikeSkip,
    TargetRate,
    ZScore,
)


@method("Seetharaman et al. 2020 (AutoClip)")
def autoclip(percentile: float = 10.0, window: int | None = None) -> dict[str, Any]:
    """Clip the norm at a percentile of all norms so far."""
    return {"threshold": Percentile(percentile, window)}


@method("Kumar et al. 2025 (ZClip)")
def zclip(
    alpha: float = 0.97,
    z: float = 2.5,
    warmup: int = 25,
    response: str = "reciprocal",
    clip_factor: float = 1.0,
    percentile: float | None = None,
    max_norm: float | None = 1.0,
) -> dict[str, Any]:
    """Clip spikes of the norm by their z-score; with a percentile (0-100), at its z."""
    if percentile is not None:
        if not 50 < percentile < 100:
            raise ValueError(f"percentile must be between 50 and 100, got {percentile!r}")
        z, response = NormalDist().inv_cdf(percentile / 100), "level"
    policy = ZScore(alpha, z, warmup, response, clip_factor)
    return {"threshold": policy if max_norm is None else Bounded(policy, high=max_norm)}


@method("Wang et al. 2025 (AdaGC)")
def adagc(
    ratio: float = 1.05, beta: float = 0.98, warmup: int = 100, initial: float = 1.0
) -> dict[str, Any]:
    """Clip every tensor's gradient at a multiple of the running mean of its clipped norms."""
    return {"threshold": EMA(ratio, beta, warmup, initial), "scope": "tensor"}


@method("Hoogeboom et al. 2022 (EDM), code")
def edm_queue(
    length: int = 50, multiplier: float = 1.5, z: float = 2.0, initial: float = 3000.0
) -> dict[str, Any]:
    """Clip the norm at 1.5 means plus 2 standard deviations of the last clipped norms."""
    return {"threshold": Queue(length, multiplier, z, initial)}


@method("Andrew et al. 2019; AGCPlus")
def target_rate(rate: float = 0.05, initial: float = 1.0, speed: float = 0.2) -> dict[str, Any]:
    """Steer c so that a wanted share of the steps is clipped."""
    return {"threshold": TargetRate(rate, initial, speed)}


@method("practice: lower c when steps keep hitting it")
def decay(
    initial: float = 1.0, alpha: float = 0.9, patience: int = 5, floor: float = 1e-3
) -> dict[str, Any]:
    """Multiply c by alpha after `patience` hits in a row, down to a floor."""
    return {"threshold": Decay(initial, alpha, patience, floor)}


@method("Bengio 2012, practice")
def moving_average(multiplier: float = 2.0, window: int = 100, warmup: int = 10) -> dict[str, Any]:
    """Clip the norm at a multiple of the mean of the last norms."""
    return {"threshold": MovingAverage(multiplier, window, warmup)}


@method("cliplab: robust statistics of the log norm")
def robust(
    deviations: float = 3.0, window: int = 64, spread: float = 0.35, prior: float = 16.0
) -> dict[str, Any]:
    """Clip spikes of the norm at a robust multiple of the last norms' median."""
    return {"threshold": RobustSpike(deviations, window, spread, prior)}


@method("OLMo-core SkipStepOptimizer, levanter; in order statistics")
def spike_skip(
    sigmas: float = 6.0, window: int = 128, warmup: int = 64, floor: float = 0.02
) -> dict[str, Any]:
    """Skip steps whose norm or loss is far outside the last ones, or not finite."""
    policy = SpikeSkip(sigmas, window, warmup, floor)
    return {"threshold": policy, "mode": "skip", "nonfinite": "skip"}


@method("Microsoft TRELLIS, code (there from a full window on)")
def percentile_window(
    percentile: float = 95.0, window: int = 1000, max_norm: float = 1.0
) -> dict[str, Any]:
    """Clip the norm at a percentile of the last norms, and at a cap."""
    return {"threshold": Bounded(Percentile(percentile, window), high=max_norm)}


@method("OLMo-1 max_grad_norm_ratio, code")
def olmo_ratio(ratio: float = 2.0, beta: float = 0.95) -> dict[str, Any]:
    """Clip every tensor's gradient at a multiple of the running mean, from the first norm on."""
    return {"threshold": EMA(ratio, beta, warmup=0), "scope": "tensor"}


@method("Dubey, Singh, Chaudhuri 2023 (AdaNorm)")
def adanorm(r: float = 0.95) -> dict[str, Any]:
    """Raise every tensor's gradient to the running mean of its norms where it is below."""
    return {"threshold": AdaNorm(r), "scope": "tensor"}


@method("Li, Wu, Chang 2026 (AGGC), code and scripts")
def aggc(
    beta: float = 0.95,
    low: float = 0.95,
    high: float = 0.6,
    late_low: float = 0.98,
    late_high: float = 0.7,
    steps: int | None = None,
    floor: float = 0.01,
    max_down: float = 0.9,
    max_up: float = 1.1,
    raise_small: bool = False,
) -> dict[str, Any]:
    """Keep every group's norm in a band around the running mean of what it was brought to."""
    policy = AGGC(
        beta,
        low=(low, late_low),
        high=(high, late_high),
        steps=steps,
        floor=floor,
        caps=(max_down, max_up),
        raise_small=raise_small,
    )
    return {"threshold": policy, "scope": "group"}


@method("Huang et al. 2026 (GradientStabilizer), code")
def gradient_stabilizer(
    gamma1: float = 0.6, gamma2: float = 0.999, eps: float = 1e-12
) -> dict[str, Any]:
    """Set every tensor's norm to its running mean over its running root mean square."""
    policy = GradientStabilizer(gamma1, gamma2, eps)
    return {"threshold": policy, "scope": "tensor", "mode": "normalise"}


@method("metaseq 2022, code: there of the learning rate")
def loss_ratio(power: float = 4.0, span: int = 9) -> dict[str, Any]:
    """Divide the gradient by (loss / its running mean)^4 where the loss is above the mean."""
    return {"threshold": LossRatio(power, span)}


@method("PyPI adamwclip 0.1.4, code")
def adamw_clip(
    k: float = 3.0, beta: float = 0.999, floor: float = 1e-10, warmup: int = 0
) -> dict[str, Any]:
    """Clamp every entry to k root mean squares of its own past."""
    return {"threshold": EntryDeviations(k, beta, floor, warmup), "scope": "element"}
