"""Measuring: sizes of gradients over a scope, overflow-safe and accumulated in at least fp32."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def check_norm_type(norm_type: float) -> float:
    """Return ``norm_type`` as a float; ``ValueError`` unless it is > 0 (``inf`` included)."""
    try:
        order = float(norm_type)
    except (TypeError, ValueError):
        order = math.nan
    if isinstance(norm_type, bool) or not order > 0:
        raise ValueError(f"norm_type must be a number > 0 or inf, got {norm_type!r}")
    return order


def tensor_norms(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of every tensor, ``[n_tensors]``, in the given order.

    ``n_i = (sum_j |g_ij|^p)^(1/p)``, in fp32 for half-precision tensors. Where the direct sum
    over- or underflows, it is taken again on ``g_i / max|g_i|``.

    >>> tensor_norms([torch.tensor([3.0, 4.0]), torch.tensor([1e25, 0.0])])
    tensor([5.0000e+00, 1.0000e+25])
    """
    fast = _stack(tensors, _foreach_norm(tensors, norm_type))
    return fast if norm_type == math.inf else _rescue(fast, tensors, norm_type)


def total_norm(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of all tensors taken as one vector: a scalar; 0 for an empty list.

    >>> total_norm([torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])])
    tensor(13.)
    """
    if not tensors:
        return torch.zeros(())
    norms = _stack(tensors, _foreach_norm(tensors, norm_type))
    fast: Tensor = torch.linalg.vector_norm(norms, norm_type)
    safe = _is_safe(fast, tensors, norm_type)
    if norm_type == math.inf or _surely(safe):
        return fast
    sizes = _rescue(norms, tensors, norm_type)
    largest = sizes.amax()
    scaled = torch.linalg.vector_norm(sizes / largest, norm_type) * largest
    return torch.where(safe | ~_is_usable(largest), fast, scaled)


def member_norms(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of each member of stacked tensors ``[members, ...]``: ``[members]``.

    Member ``m``'s size is the norm over ``tensor[m]`` of all tensors.

    >>> member_norms([torch.tensor([[3.0], [0.0]]), torch.tensor([[4.0], [2.0]])])
    tensor([5., 2.])
    """
    flat = [_widen(t).reshape(len(t), -1) for t in tensors if t.numel()]
    norms = [torch.linalg.vector_norm(t, norm_type, dim=1) for t in flat]
    fast: Tensor = torch.linalg.vector_norm(torch.stack(norms), norm_type, dim=0)
    safe = _is_safe(fast, tensors, norm_type)
    if norm_type == math.inf or _surely(safe):
        return fast
    largest = torch.stack([t.abs().amax(dim=1) for t in flat]).amax(dim=0)
    divisor = torch.where(_is_usable(largest), largest, torch.ones_like(largest))
    norms = [torch.linalg.vector_norm(t / divisor[:, None], norm_type, dim=1) for t in flat]
    scaled = torch.linalg.vector_norm(torch.stack(norms), norm_type, dim=0) * divisor
    return torch.where(safe | ~_is_usable(largest), fast, scaled)


def scale_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply all tensors in place by one scalar tensor, without a host sync.

    >>> gradient = torch.tensor([3.0, 4.0])
    >>> scale_([gradient], torch.tensor(0.5))
    >>> gradient
    tensor([1.5000, 2.0000])
    """
    for (device, _), bucket in _buckets(tensors).items():
        torch._foreach_mul_([tensors[i] for i in bucket], factor.to(device))


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor


def _buckets(tensors: Sequence[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[int]]:
    buckets = defaultdict(list)
    for i, tensor in enumerate(tensors):
        buckets[tensor.device, tensor.dtype].append(i)
    return buckets


def _foreach_norm(tensors: Sequence[Tensor], norm_type: float) -> list[Tensor]:
    """One 0-dim norm per tensor, in input order, one kernel per (device, dtype)."""
    norms: list[Tensor] = [torch.zeros(())] * len(tensors)
    for (device, dtype), bucket in _buckets(tensors).items():
        wide = torch.float32 if dtype in _HALF else None
        full = [i for i in bucket if tensors[i].numel()]
        for i in set(bucket).difference(full):
            norms[i] = torch.zeros((), device=device, dtype=wide or dtype)
        if full:
            values = torch._foreach_norm([tensors[i] for i in full], norm_type, dtype=wide)
            for i, value in zip(full, values, strict=True):
                norms[i] = value
    return norms


def _stack(tensors: Sequence[Tensor], norms: Sequence[Tensor]) -> Tensor:
    device = tensors[0].device
    return torch.stack([norm.to(device) for norm in norms])


def _is_safe(size: Tensor, tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """Neither overflowed nor so small that powers of entries were lost (NaN is final: safe)."""
    double = all(t.dtype in (torch.float64, torch.complex128) for t in tensors)
    info = torch.finfo(torch.float64 if double else torch.float32)
    smallest = (info.tiny / info.eps**2) ** (1 / norm_type)
    safe: Tensor = ((size >= smallest) & (size < math.inf)) | size.isnan()
    return safe


def _is_usable(largest: Tensor) -> Tensor:
    return (largest > 0) & (largest < math.inf)


def _surely(safe: Tensor) -> bool:
    """On a CPU a look is free; elsewhere it would be a host sync, so both ways are computed."""
    return safe.device.type == "cpu" and bool(safe.all())


def _rescue(fast: Tensor, tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """Measure again, on ``g / max|g|``, the tensors whose direct sum over- or underflowed."""
    safe = _is_safe(fast, tensors, norm_type)
    if _surely(safe):
        return fast
    largest = _stack(tensors, _foreach_norm(tensors, math.inf))
    usable = _is_usable(largest)
    divisors = torch.where(usable, largest, torch.ones_like(largest))
    scaled = [_widen(t) / d.to(t.device) for t, d in zip(tensors, divisors, strict=True)]
    sizes = _stack(tensors, _foreach_norm(scaled, norm_type)) * divisors
    return torch.where(safe | ~usable, fast, sizes)
