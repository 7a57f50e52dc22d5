"""TensorFlow's clipping functions by their names and meanings, in place on torch tensors.

They change the tensors that they are given, not their ``.grad``: pass gradients, or weights to clip
weights. ``None`` among them is passed over. Of a sparse tensor the stored entries are clipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real

import torch
from torch import Tensor, nn

from cliplab.checks import described
from cliplab.functional.limits import _limit, _scale_unless_one, _tensors
from cliplab.functional.torch_forms import get_total_norm
from cliplab.norms import add_slices, dense, is_partial, local, reduced, row_norms, whole
from cliplab.thresholds import clip_factor

Tensors = Tensor | Iterable[Tensor | None]


def clip_by_value_(tensors: Tensors, min: float, max: float) -> None:
    """Clamp every entry to ``[min, max]``, ``tf.clip_by_value``; ``ValueError`` unless min <= max.

    Args:
        tensors: a tensor or tensors, changed in place.
        min: lower bound of the entries.
        max: upper bound of the entries.

    >>> gradient = torch.tensor([-3.0, 0.5, 4.0])
    >>> clip_by_value_(gradient, -1.0, 2.0)
    >>> gradient
    tensor([-1.0000,  0.5000,  2.0000])
    """
    for name, bound in (("min", min), ("max", max)):
        number: object = bound
        if isinstance(number, bool) or not isinstance(number, Real) or math.isnan(bound):
            raise ValueError(f"{name} must be a number, got {described(bound)}")
    if min > max:
        raise ValueError(f"min must be at most max={max!r}, got {min!r}")
    listed = _listed(tensors)
    if any(map(is_partial, listed)):
        raise ValueError("addends of ranks cannot be clamped one by one: redistribute them first")
    for entries in dense(listed):
        entries.clamp_(min=min, max=max)


def clip_by_norm_(
    tensors: Tensors, clip_norm: float | Tensor, dim: int | Iterable[int] | None = None
) -> None:
    """Scale each tensor by ``c / max(norm, c)``, ``tf.clip_by_norm``; over ``dim`` if given.

    With ``dim`` (TensorFlow's ``axes``) every slice has its own norm. An inf makes its own entry
    NaN and the others 0, a NaN makes all NaN, as in TensorFlow. Raises ``ValueError``.

    Args:
        tensors: a tensor or tensors, changed in place, each by its own norm.
        clip_norm: largest norm c, >= 0.
        dim: axis or axes over which norms are taken; None: all.

    >>> gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    >>> clip_by_norm_(gradient, 1.0, dim=1)
    >>> gradient
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    limit = _limit("clip_norm", clip_norm)
    for tensor in _listed(tensors):
        if dim is None:
            _scale_unless_one([tensor], _factor(get_total_norm([tensor]), limit))
            continue
        dims, summed, own = _axes(dim, tensor), reduced(tensor), local(tensor)
        norms = add_slices(row_norms(local(summed), dims), summed, dims, 2.0)
        kept = [1 if d in dims else size for d, size in enumerate(own.shape)]
        own.mul_(_factor(norms, limit).reshape(kept).to(own.dtype))


def clip_by_global_norm_(
    tensors: Tensors, clip_norm: float | Tensor, use_norm: float | Tensor | None = None
) -> Tensor:
    """Scale all tensors by ``c / max(norm, c)``, ``tf.clip_by_global_norm``; returns the norm.

    ``use_norm`` is a norm measured before. A norm that is not finite makes every entry NaN, as in
    TensorFlow; unlike there, tensors within the limit stay as they are to the last bit
    (``c * (1 / c)`` is not 1 for every ``c``). Raises ``ValueError``.

    Args:
        tensors: a tensor or tensors, changed in place, as one vector.
        clip_norm: largest norm c, >= 0.
        use_norm: their norm, if it is known.

    >>> gradients = [torch.tensor([3.0]), None, torch.tensor([4.0])]
    >>> clip_by_global_norm_(gradients, 1.0)
    tensor(5.)
    >>> gradients
    [tensor([0.6000]), None, tensor([0.8000])]
    """
    limit = _limit("clip_norm", clip_norm)
    listed = _listed(tensors)
    norm = get_total_norm(listed) if use_norm is None else _norm(use_norm)
    _scale_unless_one(listed, _factor(norm, limit) + (norm - norm))
    return norm


def _factor(norm: Tensor, limit: float | Tensor) -> Tensor:
    return clip_factor(norm, limit, norm <= limit)  # NaN stays NaN


def _norm(given: object) -> Tensor:
    """A norm measured before, which may be inf or NaN, as a tensor."""
    if isinstance(given, Tensor):
        return whole(given.detach())
    if isinstance(given, bool) or not isinstance(given, Real):
        raise ValueError(f"use_norm must be a number or a tensor, got {described(given)}")
    return torch.tensor(float(given), dtype=torch.float32, device="cpu")


def _axes(dim: int | Iterable[int], tensor: Tensor) -> tuple[int, ...]:
    given = list(dim) if isinstance(dim, Iterable) else [dim]
    if tensor.layout is not torch.strided or any(
        not isinstance(d, int) or not -tensor.ndim <= d < tensor.ndim for d in given
    ):
        shape = f"{tensor.layout} {tuple(tensor.shape)}"
        raise ValueError(f"dim must be axes of a dense tensor, got {described(dim)} for {shape}")
    return tuple(sorted({d % tensor.ndim for d in given}))


def _listed(tensors: Tensors) -> list[Tensor]:
    whole = isinstance(tensors, Tensor | nn.Module) or not isinstance(tensors, Iterable)
    present = _tensors(tensors if whole else [t for t in tensors if t is not None])
    for tensor in present:
        if tensor.layout is torch.sparse_coo and not tensor.is_coalesced():
            tensor.copy_(tensor.coalesce())  # on itself: a detached one would not write back
    return [t.detach() if t.layout is torch.strided else t for t in present]
