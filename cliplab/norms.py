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
    norms = _foreach_norm(tensors, norm_type)
    # torch sums bucket by bucket (one per device and dtype); the same order gives the same bits.
    order = [i for bucket in _buckets(tensors).values() for i in bucket]
    fast: Tensor = torch.linalg.vector_norm(_stack(tensors, [norms[i] for i in order]), norm_type)
    if norm_type == math.inf or _surely_fine(fast):
        return fast
    sizes = _rescue(_stack(tensors, norms), tensors, norm_type)
    largest = sizes.amax()
    scaled = torch.linalg.vector_norm(sizes / largest, norm_type) * largest
    return torch.where(_is_safe(fast) | ~_is_usable(largest), fast, scaled)


def member_norms(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of each member of stacked tensors ``[members, ...]``: ``[members]``.

    Member ``m``'s size is the norm over ``tensor[m]`` of all tensors.

    >>> member_norms([torch.tensor([[3.0], [0.0]]), torch.tensor([[4.0], [2.0]])])
    tensor([5., 2.])
    """
    flat = [_widen(t).flatten(1) for t in tensors]
    norms = [torch.linalg.vector_norm(t, norm_type, dim=1) for t in flat]
    fast: Tensor = torch.linalg.vector_norm(torch.stack(norms), norm_type, dim=0)
    if norm_type == math.inf or _surely_fine(fast):
        return fast
    largest = torch.stack([t.abs().amax(dim=1) for t in flat]).amax(dim=0)
    divisor = torch.where(_is_usable(largest), largest, torch.ones_like(largest))
    norms = [torch.linalg.vector_norm(t / divisor[:, None], norm_type, dim=1) for t in flat]
    scaled = torch.linalg.vector_norm(torch.stack(norms), norm_type, dim=0) * divisor
    return torch.where(_is_safe(fast) | ~_is_usable(largest), fast, scaled)


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
        values = torch._foreach_norm([tensors[i] for i in full], norm_type, dtype=wide)
        for i, value in zip(full, values, strict=True):
            norms[i] = value
    return norms


def _stack(tensors: Sequence[Tensor], norms: Sequence[Tensor]) -> Tensor:
    device = tensors[0].device
    return torch.stack([norm.to(device) for norm in norms])


def _is_safe(size: Tensor) -> Tensor:
    """Neither overflowed nor so small that squares were lost (NaN counts as safe: it is final)."""
    info = torch.finfo(size.dtype)
    safe: Tensor = ((size >= info.tiny**0.5 / info.eps) & (size < math.inf)) | size.isnan()
    return safe


def _is_usable(largest: Tensor) -> Tensor:
    return (largest > 0) & (largest < math.inf)


def _surely_fine(size: Tensor) -> bool:
    """On a CPU a look is free; elsewhere it would be a host sync, so both ways are computed."""
    return size.device.type == "cpu" and bool(_is_safe(size).all())


def _rescue(fast: Tensor, tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """Measure again, on ``g / max|g|``, the tensors whose direct sum over- or underflowed."""
    if _surely_fine(fast):
        return fast
    largest = _stack(tensors, _foreach_norm(tensors, math.inf))
    usable = _is_usable(largest)
    divisors = torch.where(usable, largest, torch.ones_like(largest))
    scaled = [_widen(t) / d.to(t.device) for t, d in zip(tensors, divisors, strict=True)]
    sizes = _stack(tensors, _foreach_norm(scaled, norm_type)) * divisors
    return torch.where(_is_safe(fast) | ~usable, fast, sizes)
