"""cliplab: the laboratory for gradient clipping.

>>> import torch, cliplab
>>> model = torch.nn.Linear(4, 1)
>>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
>>> clipper = cliplab.Clipper(model, threshold=1.0)  # or cliplab.create("autoclip", model)
>>> attachment = clipper.attach(optimizer)  # from now on every optimizer.step() clips
>>> model(torch.ones(8, 4)).square().mean().backward()
>>> optimizer.step()
>>> clipper.history.norm_before.shape
torch.Size([1])

Where to look:

- ``Clipper`` clips what you name, by a number or by a policy (``Percentile``, ``EMA``, ``ZScore``,
  ``RobustSpike``, ... , ``Threshold`` for your own); its ``history`` tells what happened.
- ``create`` makes the clipper of a published method by name; ``list_methods()`` shows them all.
- ``find_threshold`` recommends a threshold, ``diagnose(history)`` says what should be changed.
- ``clip_grad_norm_``, ``clip_by_global_norm_``, ``adaptive_clip_`` and the others without state
  stand in for torch's, TensorFlow's and NFNets' functions.
- ``cliplab.plots`` draws a history; ``cliplab.lab`` runs the notebooks. Both need ``cliplab[lab]``.

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
        AGGC,
        EMA,
        RMS,
        AdaNorm,
        AfterWarmup,
        Band,
        Bounded,
        Context,
        Decay,
        Deviations,
        EntryDeviations,
        Fixed,
        GradientStabilizer,
        LossRatio,
        MovingAverage,
        Percentile,
        Queue,
        RateScaled,
        RobustSpike,
        Scheduled,
        SpikeSkip,
        Surprise,
        Switch,
        TargetRate,
        Threshold,
        TrustRatio,
        WeightRatio,
        ZScore,
        as_policy,
    )

__version__ = "0.2.0"

__all__ = [
    "AGGC",
    "EMA",
    "RMS",
    "AdaNorm",
    "AfterWarmup",
    "Attachment",
    "Band",
    "Bounded",
    "ClipReport",
    "Clipper",
    "Context",
    "Decay",
    "Deviations",
    "EntryDeviations",
    "Finding",
    "Findings",
    "Fixed",
    "GradientStabilizer",
    "History",
    "LossRatio",
    "Method",
    "MovingAverage",
    "NonFiniteGradientError",
    "Percentile",
    "Probe",
    "Queue",
    "RateScaled",
    "RobustSpike",
    "Scheduled",
    "SpikeSkip",
    "Surprise",
    "Switch",
    "TargetRate",
    "Threshold",
    "TrustRatio",
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
    if name == "plots":
        try:
            return import_module("cliplab.plots")
        except ImportError as error:  # help() and completion ask for every name of dir()
            raise AttributeError(f"module 'cliplab' has no attribute 'plots': {error}") from error
    for room in _ROOMS if name in __all__ else ():
        face = import_module(f"cliplab.{room}")
        if hasattr(face, name):
            globals()[name] = getattr(face, name)
            return globals()[name]
    raise AttributeError(f"module 'cliplab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, "plots", *(name for name in globals() if name.startswith("__"))})
