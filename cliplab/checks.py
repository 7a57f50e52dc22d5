"""What an argument must be, and whether a value may be looked at.

May use: torch alone.
Makes numbers: yes.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, get_args

import torch
from torch import Tensor

LOOK = True  # False: no value is looked at, as if every tensor lay on an accelerator


class NonFiniteGradientError(FloatingPointError):
    """A gradient held NaN or inf and the clipper was told to raise."""


def may_look(tensor: Tensor) -> bool:
    """Whether a value can be looked at: it would neither wait for a device nor break a graph."""
    return LOOK and tensor.is_cpu and not torch.compiler.is_compiling()


def check_choice(name: str, value: Any, choices: Any) -> Any:
    """Return ``value`` if it is one of the choices of a ``Literal``; ``ValueError`` otherwise."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")
    return value


def check_positive(name: str, value: object, *, zero: bool = False) -> float:
    """Return ``value`` as a float; ``ValueError`` for NaN, a bool, text, and numbers below 0."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    is_scalar = isinstance(value, Tensor) and value.numel() == 1
    if isinstance(value, Tensor) and (value.dtype == torch.bool or value.is_complex()):
        is_scalar = False
    number = float(value) if is_number or is_scalar else math.nan  # type: ignore[arg-type]
    if not (number > 0 or (zero and number == 0)):
        raise ValueError(f"{name} must be a number {'>= 0' if zero else '> 0'}, got {value!r}")
    return number


def check_count(name: str, value: object) -> int:
    """Return ``value`` if it is an int >= 1; ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    return int(value)


def check_norm_type(norm_type: float) -> float:
    """Return ``norm_type`` as a float; ``ValueError`` unless it is > 0 (``inf`` included)."""
    try:
        order = float(norm_type)
    except (TypeError, ValueError):
        order = math.nan
    if isinstance(norm_type, bool) or not order > 0:
        raise ValueError(f"norm_type must be a number > 0 or inf, got {norm_type!r}")
    return order
