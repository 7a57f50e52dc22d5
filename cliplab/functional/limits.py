"""What the forms without state share: limits, gradients, one factor for all."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from cliplab.checks import check_positive, described, may_look, tell
from cliplab.norms import check_layout, scale_, whole
from cliplab.parts import Hand, gradients, watched


def _limit(name: str, value: float | Tensor) -> float | Tensor:
    """A checked number; a tensor that cannot be looked at is taken as it is, without axes."""
    if not isinstance(value, Tensor):
        return check_positive(name, value, zero=True)
    held = whole(value.detach())
    return check_positive(name, held, zero=True) if may_look(held) else held.reshape(())


def _scale_unless_one(grads: list[Tensor], factor: Tensor) -> None:
    if not (may_look(factor) and float(factor) == 1.0):
        scale_(grads, factor)


def _are_plain(tensors: list[Tensor]) -> bool:
    """Strided, not sharded, on one device."""
    first, strided = tensors[0].device, torch.strided
    return all(type(t) is Tensor and t.layout is strided and t.device == first for t in tensors)


def _unique(parameters: nn.Module | Tensor | Iterable[Tensor]) -> list[Tensor]:
    """Those of a module, or the tensors, each once."""
    given = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    listed = _tensors(given, 'a module or tensors, such as group["params"]')
    if not listed and isinstance(parameters, Generator):
        tell("an empty generator was given: nothing is clipped")
    check_layout(listed)
    return list({id(p): p for p in listed}.values())


def _tensors(
    given: object, wanted: str = "tensors, such as [p.grad for p in params]"
) -> list[Tensor]:
    """What was given as a list; ``ValueError`` if that is none of tensors."""
    if isinstance(given, Tensor):
        return [given]
    if not isinstance(given, Iterable) or isinstance(given, nn.Module | str):
        raise ValueError(f"expected {wanted}, got {described(given)}")
    listed = list(given)
    for entry in listed:
        if not isinstance(entry, Tensor):
            raise ValueError(f"expected {wanted}, got {described(entry)} among them")
    return listed


def _gradients(
    parameters: nn.Module | Tensor | Iterable[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """All gradients that there are: themselves, and as they can be written to."""
    params = [p for p in _unique(parameters) if p.grad is not None]
    with torch.no_grad():
        held = cast("list[Tensor]", gradients(params))
    return held, [grad.detach() for grad in held]


def _watched(hand: Hand, limit: float | Tensor) -> Hand | None:
    """The hand where it is watched; an infinite limit only measures."""
    measures = isinstance(limit, float) and limit == math.inf
    return watched(None if measures else hand)
