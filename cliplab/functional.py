"""One-call forms without state: drop-ins for ``torch.nn.utils``, AGC, and Graves' hook.

All of them change ``.grad`` in place and work inside ``torch.compile``.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable

import torch
from torch import Tensor, nn

from cliplab.checks import NonFiniteGradientError, check_norm_type, check_positive, may_look
from cliplab.norms import clamp_, dense, plain_norm, scale_, total_norm, wide_norm, wide_total_norm
from cliplab.parts import RowParts, gradients, scale_units_, unit_norms, unit_views


class NonFiniteNormError(NonFiniteGradientError, RuntimeError):
    """Raised for ``error_if_nonfinite=True``; a ``RuntimeError`` as in torch."""


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float | Tensor,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients by ``min(1, max_norm / (norm + 1e-6))`` and return the norm before.

    Equal to ``torch.nn.utils.clip_grad_norm_`` bit for bit for finite dense gradients that are all
    fp32 or all fp64, on one device. It differs in this: half-precision norms are taken in fp32;
    norms that overflow or are below about 1e-12 (fp32) are measured right where they can be looked
    at (a CPU, not compiled); a tensor given twice is clipped once; an empty tensor is no error at
    ``norm_type=inf``; sparse gradients, several meshes and DTensors beside plain tensors work;
    ``max_norm`` must be a number >= 0 (not NaN, a bool or text) or a tensor with one, ``norm_type``
    > 0; ``foreach`` is accepted and ignored. Raises ``ValueError``, and with ``error_if_nonfinite``
    a ``RuntimeError`` that leaves the gradients.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_grad_norm_([weight], max_norm=1.0)
    tensor(5.)
    """
    limit = _limit("max_norm", max_norm)
    grads = _gradients(parameters)
    norm = get_total_norm(grads, norm_type, error_if_nonfinite)
    _scale_unless_one(grads, _torchs_factor(limit, norm))
    return norm


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Norm of tensors as one vector, ``torch.nn.utils.get_total_norm``: a scalar.

    Bit for bit torch's where ``clip_grad_norm_`` is, and different only as listed there.

    >>> get_total_norm([torch.tensor([3.0]), torch.tensor([4.0])])
    tensor(5.)
    """
    order = check_norm_type(norm_type)
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    norm = plain_norm(listed, order)
    if norm is None:
        compiling = torch.compiler.is_compiling()
        norm = wide_total_norm(dense(listed), order) if compiling else total_norm(listed, order)
    if error_if_nonfinite and not bool(norm.isfinite()):
        raise NonFiniteNormError(f"the total norm of order {order} is {float(norm)}")
    return norm


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float | Tensor,
    total_norm: Tensor,
    foreach: bool | None = None,
) -> None:
    """Scale all gradients by ``min(1, max_norm / (total_norm + 1e-6))``, as torch's does.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> clip_grads_with_norm_(weight, 1.0, torch.tensor(10.0))
    >>> weight.grad
    tensor([0.3000, 0.4000])
    """
    if not isinstance(total_norm, Tensor):
        raise ValueError(f"total_norm must be a tensor, got {total_norm!r}")
    factor = _torchs_factor(_limit("max_norm", max_norm), total_norm.detach())
    _scale_unless_one(_gradients(parameters), factor)


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Clamp every entry of the gradients to ``[-clip_value, clip_value]``; NaN stays NaN.

    Equal to ``torch.nn.utils.clip_grad_value_``, except that ``clip_value`` must be a number >= 0
    (``ValueError``), sparse gradients work, and complex entries are clipped to that magnitude;
    ``foreach`` is accepted and ignored.
    """
    limit = check_positive("clip_value", clip_value, zero=True)
    for entries in dense(_gradients(parameters)):
        clamp_(entries, limit)


def adaptive_clip_(
    parameters: nn.Module | Tensor | Iterable[Tensor], clip_factor: float = 0.01, eps: float = 1e-3
) -> None:
    """Adaptive gradient clipping (AGC) of every output unit ``i``, in place.

    ``G_i <- G_i * min(1, clip_factor * max(||W_i||, eps) / max(||G_i||, 1e-6))``. Units lie on the
    first axis; of a module's transposed convolutions on the second, one for each group; a vector
    is one unit; one with a NaN becomes NaN. Leave out the classifier, as the paper does. Raises
    ``ValueError``.
    Source: Brock, De, Smith, Simonyan 2021.

    >>> weight = torch.nn.Parameter(torch.eye(2))
    >>> weight.grad = torch.tensor([[3.0, 4.0], [0.0, 0.001]])
    >>> adaptive_clip_([weight])
    >>> weight.grad
    tensor([[0.0060, 0.0080],
            [0.0000, 0.0010]])
    """
    ratio, floor = check_positive("clip_factor", clip_factor), check_positive("eps", eps)
    held = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    params = [p for p in _unique(held) if p.grad is not None]
    if not params:
        return
    views, weights = unit_views(parameters, params), [p.detach() for p in params]
    with torch.no_grad():
        grads = [grad.detach() for grad in gradients(params, rows=True) if grad is not None]
        if _are_plain(grads + weights):
            factor = _agc_factor(unit_norms(grads, views), unit_norms(weights, views), ratio, floor)
            scale_units_(grads, views, factor)
            return
        partition = RowParts(params, views)
        sizes, limits = (partition.measure(tensors, 2.0)[0] for tensors in (grads, weights))
        partition.scale_(grads, _agc_factor(sizes, limits, ratio, floor))


def clip_activation_grad_(
    activation: Tensor, limit: float = 1.0, norm_type: float | None = None
) -> Tensor:
    """Clip the derivative of the loss with respect to an activation, inside backpropagation.

    ``dL/da <- clamp(dL/da, -limit, limit)``; with ``norm_type`` each vector along the last axis is
    scaled to at most ``limit`` in that norm. Returns the activation, so that in a recurrent cell
    ``a = clip_activation_grad_(W x + U h, 1.0)`` clips at every step of BPTT. Nothing happens to
    an activation that needs no gradient. Raises ``ValueError``. Source: Graves 2013.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> (clip_activation_grad_(x * 1.0, 0.5) * torch.tensor([0.1, 9.0])).sum().backward()
    >>> x.grad
    tensor([0.1000, 0.5000])
    """
    bound = check_positive("limit", limit, zero=True)
    order = None if norm_type is None else check_norm_type(norm_type)

    def clip(gradient: Tensor) -> Tensor:
        if order is None:
            return gradient.clamp(min=-bound, max=bound)
        size = wide_norm(gradient, order, (-1,), keepdim=True)
        over = size > bound
        factor = torch.where(over, bound / torch.where(over, size, 1.0), 1.0)
        return gradient * factor.to(gradient.dtype)

    if activation.requires_grad:
        activation.register_hook(clip)  # type: ignore[no-untyped-call]
    return activation


def _limit(name: str, value: float | Tensor) -> float | Tensor:
    """A checked number; a tensor that cannot be looked at is taken as it is, without axes."""
    if not isinstance(value, Tensor):
        return check_positive(name, value, zero=True)
    held = value.detach()
    return check_positive(name, held, zero=True) if may_look(held) else held.reshape(())


def _torchs_factor(limit: float | Tensor, norm: Tensor) -> Tensor:
    """``limit / (norm + 1e-6)`` in the order in which torch divides a number by a tensor."""
    return ((norm + 1e-6).reciprocal() * limit).clamp(max=1.0)


def _scale_unless_one(grads: list[Tensor], factor: Tensor) -> None:
    if not (may_look(factor) and float(factor) == 1.0):
        scale_(grads, factor)


def _agc_factor(sizes: Tensor, weights: Tensor, ratio: float, floor: float) -> Tensor:
    limits = ratio * weights.clamp(min=floor)
    return torch.where(sizes <= limits, 1.0, limits / sizes.clamp(min=1e-6))  # NaN stays NaN


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
