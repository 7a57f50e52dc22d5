"""What the forms without state share: limits, gradients, one factor for all."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable

import torch
from torch import Tensor

from cliplab.checks import check_positive, may_look
from cliplab.norms import scale_
from cliplab.parts import gradients


def _limit(name: str, value: float | Tensor) -> float | Tensor:
    """A checked number; a tensor that cannot be looked at is taken as it is, without axes."""
    if not isinstance(value, Tensor):
        return check_positive(name, value, zero=True)
    held = value.detach()
    return check_positive(name, held, zero=True) if may_look(held) else held.reshape(())


def _scale_unless_one(grads: list[Tensor], factor: Tensor) -> None:
    if not (may_look(factor) and float(factor) == 1.0):
        scale_(grads, factor)


def _are_plain(tensors: list[Tensor]) -> bool:
    """Strided, not sharded, on one device."""
    first, strided = tensors[0].device, torch.strided
    return all(type(t) is Tensor and t.layout is strided and t.device == first for t in tensors)


def _unique(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not listed and isinstance(parameters, Generator):
        warnings.warn("an empty generator was given: nothing is clipped", stacklevel=4)
    return list({id(p): p for p in listed}.values())


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        grads = gradients([p for p in _unique(parameters) if p.grad is not None])
    return [grad.detach() for grad in grads if grad is not None]
