"""What tests of clipping begin with."""

import torch
from torch import Tensor, nn


def with_gradients(
    *grads: object, weights: list[Tensor] | None = None, dtype: torch.dtype | None = None
) -> list[nn.Parameter]:
    """Parameters, of ones unless given, that have these gradients (tensors or lists)."""
    tensors = [torch.as_tensor(grad, dtype=dtype).clone() for grad in grads]
    weights = [torch.ones_like(t) for t in tensors] if weights is None else weights
    params = [nn.Parameter(weight.clone()) for weight in weights]
    for p, grad in zip(params, tensors, strict=True):
        p.grad = grad
    return params
