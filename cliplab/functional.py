"""One-call forms without state: drop-ins for ``torch.nn.utils``."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from cliplab.nonfinite import NonFiniteGradientError
from cliplab.norms import check_norm_type, scale_, total_norm
from cliplab.policy import check_positive


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by ``min(1, max_norm / (norm + 1e-6))`` and return the norm before.

    Equal to ``torch.nn.utils.clip_grad_norm_`` bit for bit for finite gradients that are all fp32
    or all fp64, on one device. It differs in this: half-precision norms are taken in fp32; norms
    that overflow or are below about 1e-12 (fp32) are measured right; a tensor given twice is
    clipped once; an empty tensor is no error at ``norm_type=inf``; ``max_norm`` must be a number
    >= 0 (not NaN, a bool or text), ``norm_type`` > 0; ``foreach`` is accepted and ignored. Raises
    ``ValueError``, and with ``error_if_nonfinite`` a ``RuntimeError`` that leaves the gradients.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm_([weight], max_norm=1.0)
    tensor(5.)
    """
    limit = check_positive("max_norm", max_norm, zero=True)
    order = check_norm_type(norm_type)
    grads = _gradients(parameters)
    norm = total_norm(grads, order)
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise NonFiniteNormError(f"the total norm of order {order} is {float(norm)}")
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    scale_(grads, factor)
    return norm


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Clamp every entry of the gradients to ``[-clip_value, clip_value]``; NaN stays NaN.

    Equal to ``torch.nn.utils.clip_grad_value_``, except that ``clip_value`` must be a number >= 0
    (``ValueError``); ``foreach`` is accepted and ignored.
    """
    limit = check_positive("clip_value", clip_value, zero=True)
    for grad in _gradients(parameters):
        grad.clamp_(min=-limit, max=limit)


class NonFiniteNormError(NonFiniteGradientError, RuntimeError):
    """Raised by ``clip_grad_norm_(error_if_nonfinite=True)``; a ``RuntimeError`` as in torch."""


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    unique = {id(p): p.grad for p in tensors if p.grad is not None}
    return [grad.detach() for grad in unique.values()]
