"""The entries of gradients as dense tensors of few kinds: scaled, clamped, sorted by dtype."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.norms.shards import local

HALF = (torch.float16, torch.bfloat16)
DOUBLE = (torch.float64, torch.complex128)
LARGE = 1 << 18  # entries from which a call of its own costs a tensor nothing


def dense(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Entries of tensors on this rank, sharing memory: of a sparse one those it stores.

    ``tensors`` itself where all are plain. An uncoalesced COO tensor is coalesced first, so its
    entries are then a copy.
    """
    strided = torch.strided
    if not [t for t in tensors if type(t) is not Tensor or t.layout is not strided]:
        return tensors
    return [_entries(t) for t in tensors]


def _entries(tensor: Tensor) -> Tensor:
    tensor = local(tensor)
    if tensor.layout is torch.strided:
        return tensor
    return tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor.values()


def scale_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply tensors in place by one factor, a scalar tensor, without a host sync.

    >>> gradient = torch.tensor([3.0, 4.0])
    >>> scale_([gradient], torch.tensor(0.5))
    >>> gradient
    tensor([1.5000, 2.0000])
    """
    entries = list(dense(tensors))
    if not entries:
        return
    if factor.is_cpu and all(t.is_cpu for t in entries):
        torch._foreach_mul_(entries, factor)
        return
    for (device, dtype), bucket in kinds(entries).items():
        torch._foreach_mul_([entries[i] for i in bucket], in_range(factor, dtype).to(device))


def in_range(factor: Tensor, dtype: torch.dtype) -> Tensor:
    """A factor that a tensor of this dtype can be multiplied by on an accelerator.

    There a scalar tensor is rounded to the other one's dtype first: what is too large for fp16
    would be inf, and make NaN of a 0.
    """
    if dtype is not torch.float16:
        return factor
    return factor.clamp(max=torch.finfo(dtype).max)


def clamp_(entries: Tensor, limit: float | Tensor) -> None:
    """Clamp every entry of a plain tensor to ``[-limit, limit]``, a complex one to that magnitude.

    >>> gradient = torch.tensor([-3.0, 0.5])
    >>> clamp_(gradient, 1.0)
    >>> gradient
    tensor([-1.0000,  0.5000])
    """
    if entries.is_complex():
        _clamp_magnitudes_(entries, limit)
    else:
        entries.clamp_(min=-limit, max=limit)  # type: ignore[arg-type]


def _clamp_magnitudes_(entries: Tensor, limit: float | Tensor) -> None:
    """An infinite part of an entry counts as the largest float, so that its direction stays."""
    largest = torch.finfo(entries.dtype).max
    parts = torch.view_as_real(entries.resolve_conj()).clamp(-largest, largest)
    half = torch.view_as_complex(parts.mul_(0.5))
    size = half.abs()  # finite, where the magnitude of the entry itself may overflow
    over = size > limit * 0.5
    entries.copy_(torch.where(over, half / size * limit, entries))


def kinds(tensors: Sequence[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[int]]:
    """Positions of the tensors of every device and dtype."""
    buckets = defaultdict(list)
    for i, tensor in enumerate(tensors):
        buckets[tensor.device, tensor.dtype].append(i)
    return buckets


def precision(dtype: torch.dtype) -> torch.dtype:
    """What the norm of a tensor is kept in: fp64 for fp64 and complex128, else fp32."""
    return torch.float64 if dtype in DOUBLE else torch.float32
