"""What tests of clipping begin with."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

import cliplab

METHODS = [method.name for method in cliplab.list_methods()]
ATTACHED = {"katago"} | {  # need a learning rate, or an update
    method.name for method in cliplab.list_methods() if method.build().get("target") == "update"
}
BY_HAND = [name for name in METHODS if name not in ATTACHED]


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


def optimizer_for(
    method: str, params: Iterable[nn.Parameter], lr: float = 0.1, **momentum: float
) -> torch.optim.Optimizer:
    """One that a method by name can be attached to."""
    if method == "stable_adamw":  # reads second moments
        return torch.optim.AdamW(params, lr=lr)
    return torch.optim.SGD(params, lr=lr, **momentum)
