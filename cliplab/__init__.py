"""cliplab: the laboratory for gradient clipping.

Importing it costs nothing: a name's room, and torch, are imported at the name's first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cliplab.checks import NonFiniteGradientError
    from cliplab.clipper import Attachment, Clipper
    from cliplab.diagnosis import Finding, Findings, Probe, diagnose, find_threshold
    from cliplab.functional import (
        adaptive_clip_,
        clip_activation_grad_,
        clip_by_global_norm_,
        clip_by_norm_,
        clip_by_value_,
        clip_grad_norm_,
        clip_grad_value_,
        clip_grads_with_norm_,
        get_total_norm,
    )
    from cliplab.history import ClipReport, History
    from cliplab.methods import Method, create, list_methods
    from cliplab.norms import member_norms, tensor_norms, total_norm
    from cliplab.thresholds import (
        EMA,
        RMS,
        AfterWarmup,
        Bounded,
        Context,
        Decay,
        Fixed,
        MovingAverage,
        Percentile,
        Queue,
        RobustSpike,
        Scheduled,
        SpikeSkip,
        Switch,
        TargetRate,
        Threshold,
        WeightRatio,
        ZScore,
        as_policy,
    )

__version__ = "0.1.0"

__all__ = [
    "EMA",
    "RMS",
    "AfterWarmup",
    "Attachment",
    "Bounded",
    "ClipReport",
    "Clipper",
    "Context",
    "Decay",
    "Finding",
    "Findings",
    "Fixed",
    "History",
    "Method",
    "MovingAverage",
    "NonFiniteGradientError",
    "Percentile",
    "Probe",
    "Queue",
    "RobustSpike",
    "Scheduled",
    "SpikeSkip",
    "Switch",
    "TargetRate",
    "Threshold",
    "WeightRatio",
    "ZScore",
    "adaptive_clip_",
    "as_policy",
    "clip_activation_grad_",
    "clip_by_global_norm_",
    "clip_by_norm_",
    "clip_by_value_",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "create",
    "diagnose",
    "find_threshold",
    "get_total_norm",
    "list_methods",
    "member_norms",
    "tensor_norms",
    "total_norm",
]

_ROOMS = (
    "checks",
    "norms",
    "parts",
    "thresholds",
    "history",
    "clipper",
    "functional",
    "methods",
    "diagnosis",
)


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"cliplab.{name}")
    for room in _ROOMS if name in __all__ else ():
        face = import_module(f"cliplab.{room}")
        if hasattr(face, name):
            globals()[name] = getattr(face, name)
            return globals()[name]
    raise AttributeError(f"module 'cliplab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
