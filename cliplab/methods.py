"""Published methods by name: each a one-line composition of scope and policy.

May use: checks, parts, thresholds, history, clipper.
Makes numbers: yes.
"""

from __future__ import annotations

import inspect
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from cliplab.checks import described, near
from cliplab.clipper import Clipper
from cliplab.history import html_table
from cliplab.parts import Parameters
from cliplab.thresholds import (
    EMA,
    RMS,
    Bounded,
    Decay,
    Fixed,
    MovingAverage,
    Percentile,
    Queue,
    RobustSpike,
    SpikeSkip,
    TargetRate,
    WeightRatio,
    ZScore,
)

COLUMNS = 80  # of the table of all methods
OF_CLIPPER = [  # what every method takes beside its own
    name for name in inspect.signature(Clipper).parameters if name not in ("params", "threshold")
]


@dataclass(frozen=True)
class Method:
    """A named method: what it does, where it comes from, and its own parameters with defaults."""

    name: str
    summary: str
    source: str
    build: Callable[..., dict[str, Any]] = field(repr=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """The method's own parameters and their defaults."""
        return {p.name: p.default for p in inspect.signature(self.build).parameters.values()}

    @property
    def defaults(self) -> str:
        """The parameters and their defaults, as they are written in a call."""
        return ", ".join(f"{name}={default!r}" for name, default in self.parameters.items())


_METHODS: dict[str, Method] = {}


def _method(
    source: str,
) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    def register(build: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        summary = (build.__doc__ or "").strip()
        _METHODS[build.__name__] = Method(build.__name__, summary, source, build)
        return build

    return register


@_method("-")
def none() -> dict[str, Any]:
    """Measure only, never clip."""
    return {"threshold": Fixed(math.inf)}


@_method("Mikolov 2012; torch clip_grad_value_")
def value(threshold: float = 1.0) -> dict[str, Any]:
    """Clamp every entry to [-c, c]."""
    return {"threshold": threshold, "scope": "element"}


@_method("Pascanu, Mikolov, Bengio 2013; torch clip_grad_norm_")
def norm(threshold: float = 1.0) -> dict[str, Any]:
    """Scale the whole gradient to norm c when it is larger."""
    return {"threshold": threshold}


@_method("Hazan, Levy, Shalev-Shwartz 2015 (SNGD); Cutkosky, Mehta 2020")
def normalise(threshold: float = 1.0) -> dict[str, Any]:
    """Scale the whole gradient to norm c, whether it is larger or smaller."""
    return {"threshold": threshold, "mode": "normalise"}


@_method("tf.clip_by_norm; Keras clipnorm")
def tensor_norm(threshold: float = 1.0) -> dict[str, Any]:
    """Scale every tensor's gradient to norm c when it is larger."""
    return {"threshold": threshold, "scope": "tensor"}


@_method("Shazeer, Stern 2018 (Adafactor); optax clip_by_block_rms")
def block_rms(threshold: float = 1.0) -> dict[str, Any]:
    """Scale every tensor's gradient to root mean square d when it is larger."""
    return {"threshold": RMS(threshold), "scope": "tensor"}


@_method("Brock, De, Smith, Simonyan 2021 (NFNets)")
def agc(ratio: float = 0.01, eps: float = 1e-3) -> dict[str, Any]:
    """Hold every unit's gradient to a share of its weights' norm (leave the last layer out)."""
    return {"threshold": WeightRatio(ratio, eps), "scope": "unit"}


@_method("Seetharaman et al. 2020 (AutoClip)")
def autoclip(percentile: float = 10.0, window: int | None = None) -> dict[str, Any]:
    """Clip the norm at a percentile of all norms so far."""
    return {"threshold": Percentile(percentile, window)}


@_method("Kumar et al. 2025 (ZClip)")
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


@_method("Wang et al. 2025 (AdaGC)")
def adagc(
    ratio: float = 1.05, beta: float = 0.98, warmup: int = 100, initial: float = 1.0
) -> dict[str, Any]:
    """Clip every tensor's gradient at a multiple of the running mean of its clipped norms."""
    return {"threshold": EMA(ratio, beta, warmup, initial), "scope": "tensor"}


@_method("Hoogeboom et al. 2022 (EDM), code")
def edm_queue(
    length: int = 50, multiplier: float = 1.5, z: float = 2.0, initial: float = 3000.0
) -> dict[str, Any]:
    """Clip the norm at 1.5 means plus 2 standard deviations of the last clipped norms."""
    return {"threshold": Queue(length, multiplier, z, initial)}


@_method("Andrew et al. 2019; AGCPlus")
def target_rate(rate: float = 0.05, initial: float = 1.0, speed: float = 0.2) -> dict[str, Any]:
    """Steer c so that a wanted share of the steps is clipped."""
    return {"threshold": TargetRate(rate, initial, speed)}


@_method("practice: lower c when steps keep hitting it")
def decay(
    initial: float = 1.0, alpha: float = 0.9, patience: int = 5, floor: float = 1e-3
) -> dict[str, Any]:
    """Multiply c by alpha after `patience` hits in a row, down to a floor."""
    return {"threshold": Decay(initial, alpha, patience, floor)}


@_method("Bengio 2012; OLMo max_grad_norm_ratio")
def moving_average(multiplier: float = 2.0, window: int = 100, warmup: int = 10) -> dict[str, Any]:
    """Clip the norm at a multiple of the mean of the last norms."""
    return {"threshold": MovingAverage(multiplier, window, warmup)}


@_method("cliplab: robust statistics of the log norm")
def robust(
    deviations: float = 3.0, window: int = 64, spread: float = 0.35, prior: float = 16.0
) -> dict[str, Any]:
    """Clip spikes of the norm at a robust multiple of the last norms' median."""
    return {"threshold": RobustSpike(deviations, window, spread, prior)}


@_method("OLMo-core SkipStepOptimizer, levanter; in order statistics")
def spike_skip(
    sigmas: float = 6.0, window: int = 128, warmup: int = 64, floor: float = 0.02
) -> dict[str, Any]:
    """Skip steps whose norm or loss is far outside the last ones, or not finite."""
    policy = SpikeSkip(sigmas, window, warmup, floor)
    return {"threshold": policy, "mode": "skip", "nonfinite": "skip"}


class Methods(list[Method]):
    """A list of methods that reads as a table: name, what it does, parameters with defaults."""

    def __repr__(self) -> str:
        width = max((len(method.name) for method in self), default=0) + 2
        rows = []
        for method in self:
            texts = (method.summary, method.defaults)
            lines = [line for text in texts for line in textwrap.wrap(text, COLUMNS - width)]
            rows.append(method.name.ljust(width) + f"\n{' ' * width}".join(lines))
        return "\n".join(rows) or "[]"

    def _repr_html_(self) -> str:
        rows = [(m.name, m.summary, m.defaults, m.source) for m in self]
        return html_table(("name", "what it does", "parameters", "source"), rows, text=True)


def list_methods() -> Methods:
    """Return all named methods, by name, in a list that reads as a table.

    >>> [m.name for m in list_methods()][:3]
    ['adagc', 'agc', 'autoclip']
    >>> list_methods()[2].parameters
    {'percentile': 10.0, 'window': None}
    """
    return Methods(sorted(_METHODS.values(), key=lambda method: method.name))


def create(name: str, params: Parameters, **parameters: Any) -> Clipper:
    """Make the clipper of a published method by its name.

    ``name``: adagc, agc, autoclip, block_rms, decay, edm_queue, moving_average, none, norm,
    normalise, robust, spike_skip, target_rate, tensor_norm, value or zclip; ``list_methods()`` says
    what each does, its own parameters and their defaults.

    ``params``: what is clipped: a module, tensors, ``(name, tensor)`` pairs, or optimizer-style
    groups, as for ``Clipper``.

    ``parameters``: the method's own, and ``scope``, ``norm_type``, ``mode``, ``nonfinite``,
    ``exclude``, ``target``, ``reduce`` and ``check_ranks`` of ``Clipper``, which win over what the
    method would set: ``create("agc", model, scope="tensor", exclude="head.*")``. ``threshold`` is
    there where the method has that parameter (norm, normalise, value, tensor_norm, block_rms); the
    others make their threshold themselves.

    Raises ``ValueError`` for an unknown name or parameter, and for what does not go together.

    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> create("autoclip", model, percentile=25).policy
    Percentile(percentile=25.0, window=None)
    >>> clipper = create("spike_skip", model, sigmas=4.0, nonfinite="raise")
    >>> clipper.mode, clipper.nonfinite
    ('skip', 'raise')
    """
    method = _named(name, params)
    own = {key: parameters.pop(key) for key in method.parameters if key in parameters}
    takes = [*method.parameters, *OF_CLIPPER]
    for key in parameters:
        if key == "threshold":
            made_of = f" of {', '.join(method.parameters)}" if method.parameters else ""
            raise ValueError(f"{name} has no parameter 'threshold': it makes its own{made_of}")
        if key not in OF_CLIPPER:
            hint = f"{near(key, takes)}; it takes {', '.join(takes)}"
            raise ValueError(f"{name} has no parameter {key!r}{hint}")
    return Clipper(params, **method.build(**own) | parameters)


def _named(name: Any, params: Parameters) -> Method:
    if not isinstance(name, str):
        swapped = f": create({params!r}, ...)" if isinstance(params, str) else ""
        raise ValueError(f"create takes a method's name first, got {described(name)}{swapped}")
    if name not in _METHODS:
        known = sorted(_METHODS)
        hint = f"{near(name, known)}; known: {', '.join(known)}"
        raise ValueError(f"unknown method {described(name)}{hint}")
    return _METHODS[name]
