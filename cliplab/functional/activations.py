"""Clipping inside backpropagation."""

from __future__ import annotations

import torch
from torch import Tensor

from cliplab.checks import check_norm_type, check_positive, described
from cliplab.norms import wide_norm
from cliplab.thresholds import clip_factor


def clip_activation_grad_(
    activation: Tensor, limit: float = 1.0, norm_type: float | None = None
) -> Tensor:
    """Clip the derivative of the loss with respect to an activation, inside backpropagation.

    ``dL/da <- clamp(dL/da, -limit, limit)``; with ``norm_type`` each vector along the last axis is
    scaled to at most ``limit`` in that norm, and becomes NaN if it holds one. Returns the
    activation, so that in a recurrent cell ``a = clip_activation_grad_(W x + U h, 1.0)`` clips at
    every step of BPTT. Nothing happens to an activation that needs no gradient. Raises
    ``ValueError``. Source: Graves 2013.

    On logits ``[batch, classes]``, ``norm_type=2`` clips the derivative of every sample's loss on
    its own, so that no sample pulls harder than c. A mean loss holds 1 / batch of each derivative:
    give ``c / batch`` there. With softmax cross-entropy ``|p - onehot(y)| <= sqrt(2)``: a larger c
    does nothing. On the probability p of the label, ``-log p`` clipped at ``tau / batch`` has the
    gradient of the partially Huberised cross-entropy, ``-tau p + log(tau) + 1`` where
    ``p <= 1 / tau``, which is robust to label noise where clipping the batch's gradient in general
    is not. Source: Menon et al. 2020.

    Args:
        activation: a tensor ``[..., units]`` within the forward pass.
        limit: c, >= 0: of an entry, or of the norm of a vector.
        norm_type: order p of that norm, > 0; None: entry by entry.

    >>> logits = torch.tensor([[0.0, 6.0], [0.0, 0.0]], requires_grad=True)
    >>> held = clip_activation_grad_(logits * 1.0, 0.75 / 2, norm_type=2)
    >>> torch.nn.functional.cross_entropy(held, torch.tensor([0, 0])).backward()
    >>> (2 * logits.grad).norm(dim=1)  # without the clip 1.41 and 0.71
    tensor([0.7500, 0.7071])

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> (clip_activation_grad_(x * 1.0, 0.5) * torch.tensor([0.1, 9.0])).sum().backward()
    >>> x.grad
    tensor([0.1000, 0.5000])
    """
    if not isinstance(activation, Tensor):
        raise ValueError(f"activation must be a tensor, got {described(activation)}")
    bound = check_positive("limit", limit, zero=True)
    order = None if norm_type is None else check_norm_type(norm_type)

    def clip(gradient: Tensor) -> Tensor:
        if order is None:
            return gradient.clamp(min=-bound, max=bound)
        size = wide_norm(gradient, (-1,), order)
        over = ~(size <= bound)  # NaN too: all of its vector becomes NaN
        factor = clip_factor(torch.where(over, size, 1.0), bound, ~over)  # 0 has no derivative
        return gradient * factor.to(gradient.dtype)

    if activation.requires_grad:
        activation.register_hook(clip)  # type: ignore[no-untyped-call]
    return activation
