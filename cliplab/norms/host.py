"""Norms that are looked at and, where they overflowed or vanished, measured again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import on_host
from cliplab.norms.entries import DOUBLE, HALF, _buckets

SHORT = 1 << 12  # entries up to which copying a tensor costs less than a call
LARGE = 1 << 18  # entries from which a call of its own costs a tensor nothing


def local_norms(entries: list[Tensor], norm_type: float) -> Tensor:
    """Norm of every plain tensor, ``[n_tensors]``; there must be one."""
    return _rescue(direct_norms(entries, norm_type), entries, norm_type)


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
