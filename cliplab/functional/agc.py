"""Adaptive gradient clipping of every output unit."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cliplab.checks import check_positive
from cliplab.functional.limits import _are_plain, _unique
from cliplab.parts import (
    Hand,
    RowParts,
    gradients,
    mark,
    scale_units_,
    unit_norms,
    unit_views,
    warn_if_clipped,
    watched,
)
from cliplab.thresholds import clip_factor

_AGC = Hand("adaptive_clip_()", loose=True)


def adaptive_clip_(
    parameters: nn.Module | Tensor | Iterable[Tensor], clip_factor: float = 0.01, eps: float = 1e-3
) -> None:
    """Adaptive gradient clipping (AGC) of every output unit ``i``, in place.

    ``G_i <- G_i * min(1, clip_factor * max(||W_i||, eps) / max(||G_i||, 1e-6))``. Units lie on the
    first axis; of a module's transposed convolutions on the second, one for each group; a vector
    is one unit; one with a NaN becomes NaN. Leave out the classifier, as the paper does. Raises
    ``ValueError``.
    Source: Brock, De, Smith, Simonyan 2021.

    Args:
        parameters: a module, a tensor or tensors, whose ``.grad`` is scaled.
        clip_factor: limit over the weights' norm, >= 0.
        eps: smallest norm of weights that counts.

    >>> weight = torch.nn.Parameter(torch.eye(2))
    >>> weight.grad = torch.tensor([[3.0, 4.0], [0.0, 0.001]])
    >>> adaptive_clip_([weight])
    >>> weight.grad
    tensor([[0.0060, 0.0080],
            [0.0000, 0.0010]])
    """
    ratio, floor = check_positive("clip_factor", clip_factor), check_positive("eps", eps)
    params = [p for p in _unique(parameters) if p.grad is not None]
    if not params:
        return
    views, weights = unit_views(parameters, params), [p.detach() for p in params]
    with torch.no_grad():
        held = [grad for grad in gradients(params, rows=True) if grad is not None]
        hand, grads = watched(_AGC), [grad.detach() for grad in held]
        if hand is not None:
            warn_if_clipped(held, hand)
        if _are_plain(grads + weights) and all(weight.numel() for weight in weights):
            factor = _agc_factor(unit_norms(grads, views), unit_norms(weights, views), ratio, floor)
            scale_units_(grads, views, factor)
        else:
            partition = RowParts(params, views)
            sizes, limits = (partition.measure(tensors, 2.0)[0] for tensors in (grads, weights))
            partition.scale_(grads, _agc_factor(sizes, limits, ratio, floor))
        if hand is not None:
            mark(held, hand)


def _agc_factor(sizes: Tensor, weights: Tensor, ratio: float, floor: float) -> Tensor:
    limits = ratio * weights.clamp(min=floor)
    return clip_factor(sizes.clamp(min=1e-6), limits, sizes <= limits)  # NaN stays NaN
