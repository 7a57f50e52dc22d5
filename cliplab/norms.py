"""Measuring: sizes of gradients, overflow-safe and accumulated in at least fp32.

On a CPU the direct sum is looked at, and taken again on scaled entries where it over- or
underflowed. On an accelerator a look would wait for the device: sums are taken in fp64 at once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import on_host
from cliplab.sharded import add_shards, is_sharded, local

HALF = (torch.float16, torch.bfloat16)
DOUBLE = (torch.float64, torch.complex128)
SHORT = 1 << 12  # entries up to which copying a tensor costs less than a call
LARGE = 1 << 18  # entries from which a call of its own costs a tensor nothing


def dense(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Entries of tensors on this rank, sharing memory: of a sparse one those it stores.

    An uncoalesced COO tensor is coalesced first, so its entries are then a copy.
    """
    strided = torch.strided
    return [t if type(t) is Tensor and t.layout is strided else _entries(t) for t in tensors]


def _entries(tensor: Tensor) -> Tensor:
    tensor = local(tensor)
    if tensor.layout is torch.strided:
        return tensor
    return tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor.values()


def tensor_norms(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of every tensor, ``[n_tensors]``, in the given order; a DTensor counts as a whole.

    ``n_i = (sum_j |g_ij|^p)^(1/p)``, in fp32 for half-precision tensors, right for entries of any
    magnitude.

    >>> tensor_norms([torch.tensor([3.0, 4.0]), torch.tensor([1e25, 0.0])])
    tensor([5.0000e+00, 1.0000e+25])
    """
    if not tensors:
        return torch.zeros(0)
    norms = local_norms(dense(tensors), norm_type)
    if not any(map(is_sharded, tensors)):
        return norms
    return torch.cat(add_shards(list(norms.reshape(-1, 1)), tensors, norm_type))


def local_norms(entries: list[Tensor], norm_type: float) -> Tensor:
    """Norm of every plain tensor, ``[n_tensors]``; there must be one."""
    return _rescue(direct_norms(entries, norm_type), entries, norm_type)


def total_norm(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of all tensors taken as one vector: a scalar; 0 for an empty list.

    >>> total_norm([torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])])
    tensor(13.)
    """
    if not tensors:
        return torch.zeros(())
    if any(type(t) is not Tensor and is_sharded(t) for t in tensors):
        return combine(tensor_norms(tensors, norm_type), norm_type)
    total = total_norm_1(tensors, norm_type)
    return total.reshape(())


def total_norm_1(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """``total_norm`` of tensors none of which is sharded, and one at least: ``[1]``."""
    entries = _join_vectors(dense(tensors))
    norms = direct_norms(entries, norm_type)
    if norm_type != 2 or not on_host(norms):
        return combine(_rescue(norms, entries, norm_type), norm_type).reshape(1)
    total = math.hypot(*norms.tolist())
    if not _is_safe(total, norms.dtype, norm_type):
        total = math.hypot(*_rescue(norms, entries, norm_type).tolist())
    return torch.tensor([total], dtype=norms.dtype)


def plain_norm(tensors: Sequence[Tensor], norm_type: float) -> Tensor | None:
    """The total norm by the operations of ``torch.nn.utils``, bit for bit; None where that is not
    the right one: half-precision, mixed, sparse or sharded tensors, overflow and underflow.
    """
    full = [t for t in tensors if t.numel()] if norm_type == math.inf else list(tensors)
    kinds = {(t.device, t.dtype, t.layout) for t in full}
    if len(kinds) != 1 or full[0].dtype in HALF or full[0].layout is not torch.strided:
        return None
    if any(map(is_sharded, full)):
        return None
    norms = torch._foreach_norm(full, norm_type)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms), norm_type)
    if norm_type == math.inf or torch.compiler.is_compiling() or not on_host(norm):
        return norm
    return norm if _is_safe(float(norm), norm.dtype, norm_type) else None


def member_norms(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of each member of stacked tensors ``[members, ...]``: ``[members]``.

    Member ``m``'s size is the norm over ``tensor[m]`` of all tensors.

    >>> member_norms([torch.tensor([[3.0], [0.0]]), torch.tensor([[4.0], [2.0]])])
    tensor([5., 2.])
    """
    rows = [row_norms(t.reshape(len(t), -1), (1,), norm_type) for t in tensors if t.numel()]
    return combine(torch.stack(rows), norm_type)


def row_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float = 2.0) -> Tensor:
    """Norm over ``dims`` of a plain tensor: one entry, flattened, for every index of the others.

    >>> row_norms(torch.tensor([[3.0, 4.0], [0.0, 1e-25]]), (1,))
    tensor([5.0000e+00, 1.0000e-25])
    """
    norms = direct_row_norms(tensor, dims, norm_type)
    if not on_host(norms) or bool((fine := safe(norms, norm_type)).all()) or not tensor.numel():
        return norms
    kept = [d for d in range(tensor.ndim) if d not in dims]
    rows = tensor.permute(*kept, *dims).reshape(len(norms), -1)[~fine]
    largest = direct_row_norms(rows, (1,), math.inf)
    usable = (largest > 0) & largest.isfinite()
    divisor = torch.where(usable, largest, 1.0)
    scaled = torch.linalg.vector_norm(rows / divisor[:, None], norm_type, dim=1) * divisor
    return norms.masked_scatter(~fine, torch.where(usable, scaled, norms[~fine]))


def direct_row_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float) -> Tensor:
    """``row_norms`` by plain sums."""
    result = torch.float64 if tensor.dtype in DOUBLE else torch.float32
    if not tensor.numel():
        count = torch.Size([size for d, size in enumerate(tensor.shape) if d not in dims]).numel()
        return torch.zeros(count, device=tensor.device, dtype=result)
    if not dims:  # rows of one entry; vector_norm would take no dims for all
        tensor, dims = tensor.unsqueeze(-1), (tensor.ndim,)
    wide = _wide(tensor.device, tensor.dtype)
    norms: Tensor = torch.linalg.vector_norm(tensor, norm_type, dims, dtype=wide)
    return norms.flatten() if on_host(norms) else norms.flatten().to(result)


def safe(norms: Tensor, norm_type: float) -> Tensor:
    """Which norms neither overflowed nor may have lost entries (NaN is final: safe)."""
    if norm_type == math.inf:
        return torch.ones_like(norms, dtype=torch.bool)
    return ((norms >= _smallest(norms.dtype, norm_type)) & (norms < math.inf)) | norms.isnan()


def combine(norms: Tensor, norm_type: float) -> Tensor:
    """Norm over the first axis of norms, summed in fp64 where the device has it.

    >>> combine(torch.tensor([3e30, 4e30]), 2.0)
    tensor(5.0000e+30)
    """
    wide = norms.dtype if norms.device.type == "mps" else torch.float64
    total: Tensor = torch.linalg.vector_norm(norms, norm_type, dim=0, dtype=wide)
    return total.to(norms.dtype)


def scale_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply tensors in place by one factor, a scalar tensor, without a host sync.

    >>> gradient = torch.tensor([3.0, 4.0])
    >>> scale_([gradient], torch.tensor(0.5))
    >>> gradient
    tensor([1.5000, 2.0000])
    """
    entries = dense(tensors)
    if not entries:
        return
    if factor.is_cpu and all(t.is_cpu for t in entries):
        torch._foreach_mul_(entries, factor)
        return
    for (device, _), bucket in _buckets(entries).items():
        torch._foreach_mul_([entries[i] for i in bucket], factor.to(device))


def clamp_(entries: Tensor, limit: float | Tensor) -> None:
    """Clamp every entry of a plain tensor to ``[-limit, limit]``, a complex one to that magnitude.

    >>> gradient = torch.tensor([-3.0, 0.5])
    >>> clamp_(gradient, 1.0)
    >>> gradient
    tensor([-1.0000,  0.5000])
    """
    if entries.is_complex():
        size = entries.abs()
        entries.mul_(torch.where(size > limit, limit / size, 1.0))
    else:
        entries.clamp_(min=-limit, max=limit)  # type: ignore[arg-type]


def _buckets(tensors: Sequence[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[int]]:
    buckets = defaultdict(list)
    for i, tensor in enumerate(tensors):
        buckets[tensor.device, tensor.dtype].append(i)
    return buckets


def direct_norms(entries: list[Tensor], norm_type: float) -> Tensor:
    """Norms by plain sums, ``[n_tensors]``, on the first tensor's device."""
    single = torch.float32
    if norm_type == 2 and all(t.dtype is single and t.is_cpu for t in entries):
        return _blas_norms(entries)
    norms: dict[int, Tensor] = {}
    for (device, dtype), bucket in _buckets(entries).items():
        full = [i for i in bucket if entries[i].numel()]  # p=inf is undefined for no entries
        norms |= {i: torch.zeros((), device=device) for i in bucket}
        if full:
            tensors, wide = [entries[i] for i in full], _wide(device, dtype)
            norms |= zip(full, torch._foreach_norm(tensors, norm_type, dtype=wide), strict=True)
    result = torch.float64 if any(t.dtype in DOUBLE for t in entries) else torch.float32
    place = entries[0].device
    return torch.stack([norms[i].to(place, result) for i in range(len(entries))])


def _join_vectors(entries: list[Tensor]) -> list[Tensor]:
    """Short fp32 vectors on a CPU joined to one: copying them costs less than a call for each."""
    single = torch.float32
    short = [t.ndim == 1 and t.numel() <= SHORT and t.dtype is single and t.is_cpu for t in entries]
    if sum(short) < 3:
        return entries
    vectors = [t for t, is_short in zip(entries, short, strict=True) if is_short]
    others = [t for t, is_short in zip(entries, short, strict=True) if not is_short]
    return [torch.cat(vectors), *others]


def _blas_norms(entries: list[Tensor]) -> Tensor:
    """L2 norms of fp32 tensors on a CPU: large ones in one read each, at the speed of BLAS."""
    large = [i for i, t in enumerate(entries) if t.numel() >= LARGE and t.is_contiguous()]
    if not large:
        return torch.stack(torch._foreach_norm(entries))
    flat = [entries[i].view(-1) for i in large]
    roots = torch.stack([torch.dot(t, t) for t in flat]).sqrt()
    if len(large) == len(entries):
        return roots
    norms: list[Any] = list(entries)
    for i, root in zip(large, roots.unbind(), strict=True):
        norms[i] = root
    chosen = set(large)
    small = [i for i in range(len(entries)) if i not in chosen]
    values = torch._foreach_norm([entries[i] for i in small])
    for i, value in zip(small, values, strict=True):
        norms[i] = value
    return torch.stack(norms)


def _wide(device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    """What to sum in, None for as it is: fp64 on accelerators, where nothing can be taken again."""
    if device.type in ("cpu", "mps"):
        return torch.float32 if dtype in HALF else None
    return torch.complex128 if dtype.is_complex else torch.float64


def _smallest(dtype: torch.dtype, norm_type: float) -> float:
    """Norms below this may have lost entries whose powers are too small."""
    info = torch.finfo(dtype)
    return (info.tiny / info.eps**2) ** (1 / norm_type)  # type: ignore[no-any-return]


def _is_safe(norm: float, dtype: torch.dtype, norm_type: float) -> bool:
    """Neither overflowed nor too small (NaN is final: safe; 0 may be either)."""
    return norm != norm or _smallest(dtype, norm_type) <= norm < math.inf


def _rescue(norms: Tensor, entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """Measure again, on ``g / max|g|``, the tensors whose direct sum over- or underflowed."""
    if norm_type == math.inf or not on_host(norms):
        return norms
    values = norms.tolist()
    unsafe = [i for i, v in enumerate(values) if not _is_safe(v, norms.dtype, norm_type)]
    for i in unsafe:
        tensor = entries[i]
        largest = float(torch.linalg.vector_norm(tensor, math.inf)) if tensor.numel() else 0.0
        if 0 < largest < math.inf:
            wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
            values[i] = float(torch.linalg.vector_norm(wide / largest, norm_type)) * largest
    return torch.tensor(values, dtype=norms.dtype) if unsafe else norms
