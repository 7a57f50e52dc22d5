"""Published methods by name: each a one-line composition of scope and policy."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cliplab.clipper import Clipper
from cliplab.parameters import Parameters
from cliplab.thresholds import Decay, Fixed, MovingAverage, Percentile


@dataclass(frozen=True)
class Method:
    """A named method: what it does, where it comes from, and its own parameters with defaults."""

    name: str
    summary: str
    source: str
    build: Callable[..., dict[str, Any]]

    @property
    def parameters(self) -> dict[str, Any]:
        """The method's own parameters and their defaults."""
        return {p.name: p.default for p in inspect.signature(self.build).parameters.values()}


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


@_method("tf.clip_by_norm; Keras clipnorm")
def tensor_norm(threshold: float = 1.0) -> dict[str, Any]:
    """Scale every tensor's gradient to norm c when it is larger."""
    return {"threshold": threshold, "scope": "tensor"}


@_method("Seetharaman et al. 2020 (AutoClip)")
def autoclip(percentile: float = 10.0, window: int | None = None) -> dict[str, Any]:
    """Clip the norm at a percentile of all norms so far."""
    return {"threshold": Percentile(percentile, window)}


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


def list_methods() -> list[Method]:
    """Return all named methods, by name.

    >>> [m.name for m in list_methods()][:3]
    ['autoclip', 'decay', 'moving_average']
    """
    return sorted(_METHODS.values(), key=lambda method: method.name)


def create(name: str, params: Parameters, **parameters: Any) -> Clipper:
    """Make the clipper of a named method; takes the method's own parameters and the Clipper's.

    Raises ``ValueError`` for an unknown name or parameter.

    >>> import torch
    >>> create("autoclip", [torch.nn.Parameter(torch.zeros(2))], percentile=25).policy
    Percentile(percentile=25.0, window=None)
    """
    if name not in _METHODS:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(sorted(_METHODS))}")
    method = _METHODS[name]
    own = {key: parameters.pop(key) for key in method.parameters if key in parameters}
    settings = method.build(**own)
    allowed = set(inspect.signature(Clipper.__init__).parameters) - {"self", "params", *settings}
    unknown = set(parameters) - allowed
    if unknown:
        takes = ", ".join([*method.parameters, *sorted(allowed)])
        raise ValueError(f"{name} has no parameter {sorted(unknown)[0]!r}; it takes {takes}")
    return Clipper(params, **settings, **parameters)
