"""One-call forms without state: drop-ins for ``torch.nn.utils``, AGC, and Graves' hook.

All of them change ``.grad`` in place and work inside ``torch.compile``.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from cliplab.checks import NonFiniteGradientError, check_norm_type, check_positive, described
from cliplab.functional.limits import _gradients, _limit, _scale_unless_one, _tensors, _watched
from cliplab.norms import clamp_, dense, torch_norm, whole
from cliplab.parts import Hand, mark, warn_if_clipped

Parameters = nn.Module | Tensor | Iterable[Tensor]
_NORM, _WITH_NORM, _VALUE = (
    Hand(f"{name}()", loose=True)
    for name in ("clip_grad_norm_", "clip_grads_with_norm_", "clip_grad_value_")
)


class NonFiniteNormError(NonFiniteGradientError, RuntimeError):
    """Raised for ``error_if_nonfinite=True``; a ``RuntimeError`` as in torch."""


def clip_grad_norm_(
    parameters: Parameters,
    max_norm: float | Tensor,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by ``min(1, max_norm / (norm + 1e-6))`` and return the norm before.

    Equal to ``torch.nn.utils.clip_grad_norm_`` bit for bit for finite dense gradients that are all
    fp32, of at most 2^20 entries each, or all fp64, on one device. It differs in this: on a CPU
    larger ones are measured right, to 1e-5, where torch's one long sum stagnates (normal entries,
    2^26 of them: 0.5 % low, 9 % at order 1); half-precision norms are taken in fp32; norms that
    overflow or are below about 1e-12 (fp32) are measured right where they can be looked at (a CPU,
    not compiled); a tensor given twice is clipped once; an empty tensor is no error at
    ``norm_type=inf``; sparse gradients, several meshes and DTensors beside plain tensors work;
    ``max_norm`` must be a number >= 0 (not NaN, a bool or text) or a tensor with one, ``norm_type``
    > 0; ``foreach`` is accepted and ignored; a module is taken as its parameters, and gradients
    that a clipper has just clipped are warned of. Raises ``ValueError``, and with
    ``error_if_nonfinite`` a ``RuntimeError`` that leaves the gradients.

    Args:
        parameters: a module, a tensor or tensors, whose ``.grad`` is scaled.
        max_norm: largest norm, >= 0.
        norm_type: order p of the norm, > 0; ``inf`` takes the largest entry.
        error_if_nonfinite: raise where the norm is NaN or infinite.
        foreach: ignored.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm_([weight], max_norm=1.0)
    tensor(5.)
    """
    limit = _limit("max_norm", max_norm)
    held, grads = _gradients(parameters)
    hand = _watched(_NORM, limit)
    if hand is not None:
        warn_if_clipped(held, hand)
    norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    _scale_unless_one(grads, _torchs_factor(limit, norm))
    if hand is not None:
        mark(held, hand)
    return norm


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Norm of tensors as one vector, ``torch.nn.utils.get_total_norm``: a scalar.

    Bit for bit torch's where ``clip_grad_norm_`` is, and different only as listed there.

    Args:
        tensors: a tensor or tensors, as gradients; not a module.
        norm_type: order p of the norm, > 0; ``inf`` takes the largest entry.
        error_if_nonfinite: raise where the norm is NaN or infinite.
        foreach: ignored.

    >>> import torch
    >>> get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])])
    tensor(5.)
    """
    order = check_norm_type(norm_type)
    listed = _tensors(tensors)
    norm = torch_norm(listed, order)
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise NonFiniteNormError(f"the total norm of order {order} is {float(norm)}")
    return norm


def clip_grads_with_norm_(
    parameters: Parameters,
    max_norm: float | Tensor,
    total_norm: Tensor,
    foreach: bool | None = None,
) -> None:
    """Scale all gradients by ``min(1, max_norm / (total_norm + 1e-6))``, as torch's does.

    Args:
        parameters: a module, a tensor or tensors, whose ``.grad`` is scaled.
        max_norm: largest norm, >= 0.
        total_norm: what ``get_total_norm`` measured, a scalar tensor.
        foreach: ignored.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_grads_with_norm_(weight, 1.0, torch.tensor(10.0))
    >>> weight.grad
    tensor([0.3000, 0.4000])
    """
    if not isinstance(total_norm, Tensor):
        raise ValueError(f"total_norm must be a tensor, got {described(total_norm)}")
    limit = _limit("max_norm", max_norm)
    held, grads = _gradients(parameters)
    hand = _watched(_WITH_NORM, limit)
    if hand is not None:
        warn_if_clipped(held, hand)
    _scale_unless_one(grads, _torchs_factor(limit, whole(total_norm.detach())))
    if hand is not None:
        mark(held, hand)


def clip_grad_value_(
    parameters: Parameters, clip_value: float, foreach: bool | None = None
) -> None:
    """Clamp every entry of the gradients to ``[-clip_value, clip_value]``; NaN stays NaN.

    Equal to ``torch.nn.utils.clip_grad_value_``, except that ``clip_value`` must be a number >= 0
    (``ValueError``), sparse gradients work, and complex entries are clipped to that magnitude;
    ``foreach`` is accepted and ignored.

    Args:
        parameters: a module, a tensor or tensors, whose ``.grad`` is clamped.
        clip_value: largest magnitude of an entry, >= 0.
        foreach: ignored.
    """
    limit = check_positive("clip_value", clip_value, zero=True)
    held, grads = _gradients(parameters)
    hand = _watched(_VALUE, limit)
    if hand is not None:
        warn_if_clipped(held, hand)
    for entries in dense(grads):
        clamp_(entries, limit)
    if hand is not None:
        mark(held, hand)


def _torchs_factor(limit: float | Tensor, norm: Tensor) -> Tensor:
    """``min(1, limit / (norm + 1e-6))`` as torch computes it, eps and all: bits are its contract.

    Not ``clip_factor``, whose factor is exactly ``limit / norm``, and 1 up to the limit.
    """
    return ((norm + 1e-6).reciprocal() * limit).clamp(max=1.0)
