"""Measuring on a CPU: plain sums, looked at and, where they overflowed or vanished, taken again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cliplab.norms import device
from cliplab.norms.entries import HALF, LARGE

SHORT = 1 << 12  # entries up to which copying a tensor costs less than a call


def total_norm(entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """Norm of plain tensors as one vector: a scalar."""
    entries = _join_vectors(entries)
    norms = plain_norms(entries, norm_type)
    if norm_type != 2:
        return device.combine(_again(norms, entries, norm_type), norm_type)
    total = math.hypot(*norms.tolist())
    if not is_safe(total, norms.dtype, norm_type):
        total = math.hypot(*_again(norms, entries, norm_type).tolist())
    return torch.tensor(total, dtype=norms.dtype)


def tensor_norms(entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """Norm of every plain tensor, ``[n_tensors]``."""
    return _again(plain_norms(entries, norm_type), entries, norm_type)


def row_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float) -> Tensor:
    """Norm over ``dims`` of a plain tensor, flattened."""
    norms = plain_row_norms(tensor, dims, norm_type)
    bad = unsafe(norms, norm_type)
    if bad is None:
        return norms
    kept = [d for d in range(tensor.ndim) if d not in dims]
    rows = tensor.permute((*kept, *dims)).reshape(len(norms), -1)[bad]
    largest = plain_row_norms(rows, (1,), math.inf)
    usable = (largest > 0) & largest.isfinite()
    divisor = torch.where(usable, largest, 1.0)
    scaled = torch.linalg.vector_norm(rows / divisor[:, None], norm_type, dim=1) * divisor
    return norms.masked_scatter(bad, torch.where(usable, scaled, norms[bad]))


def plain_norms(entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """``tensor_norms`` without a look."""
    single = torch.float32
    if norm_type == 2 and not [t for t in entries if t.dtype is not single or not t.is_cpu]:
        return _blas_norms(entries)
    return device.norms_summed_in(_own, entries, norm_type)


def plain_row_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float) -> Tensor:
    """``row_norms`` without a look."""
    if not tensor.is_cpu:
        return device.row_norms(tensor, dims, norm_type)
    if not dims:  # rows of one entry; vector_norm would take no dims for all
        tensor, dims = tensor.unsqueeze(-1), (tensor.ndim,)
    norms: Tensor = torch.linalg.vector_norm(tensor, norm_type, dims, dtype=_own(tensor))
    return norms.flatten()


def unsafe(norms: Tensor, norm_type: float) -> Tensor | None:
    """Mask of the norms that overflowed or may have lost entries (NaN is final); None for none."""
    if norm_type == math.inf:
        return None
    safe = ((norms >= _smallest(norms.dtype, norm_type)) & (norms < math.inf)) | norms.isnan()
    return None if bool(safe.all()) else ~safe


def _again(norms: Tensor, entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """Measure again, on ``g / max|g|``, the tensors whose plain sum over- or underflowed."""
    if norm_type == math.inf:
        return norms
    values = norms.tolist()
    bad = [i for i, v in enumerate(values) if not is_safe(v, norms.dtype, norm_type)]
    for i in bad:
        tensor = entries[i]
        largest = float(torch.linalg.vector_norm(tensor, math.inf)) if tensor.numel() else 0.0
        if 0 < largest < math.inf:
            wide = tensor.to(device.wide(tensor))
            values[i] = float(torch.linalg.vector_norm(wide / largest, norm_type)) * largest
    return torch.tensor(values, dtype=norms.dtype) if bad else norms


def is_safe(norm: float, dtype: torch.dtype, norm_type: float) -> bool:
    """Neither overflowed nor too small (NaN is final: safe; 0 may be either)."""
    return norm != norm or _smallest(dtype, norm_type) <= norm < math.inf


@cache
def _smallest(dtype: torch.dtype, norm_type: float) -> float:
    """Norms below this may have lost entries whose powers are too small."""
    info = torch.finfo(dtype)
    return (info.tiny / info.eps**2) ** (1 / norm_type)  # type: ignore[no-any-return]


def _own(tensor: Tensor) -> torch.dtype | None:
    """The dtype to sum in: the tensor's own, fp32 for half precision."""
    if not tensor.is_cpu:  # beside tensors on a CPU
        return device.wide(tensor)
    return torch.float32 if tensor.dtype in HALF else None


def _join_vectors(entries: Sequence[Tensor]) -> Sequence[Tensor]:
    """Short fp32 vectors on a CPU joined to one: copying them costs less than a call for each."""
    single = torch.float32
    short = [t.ndim == 1 and t.numel() <= SHORT and t.dtype is single and t.is_cpu for t in entries]
    if sum(short) < 3:
        return entries
    vectors = [t for t, is_short in zip(entries, short, strict=True) if is_short]
    others = [t for t, is_short in zip(entries, short, strict=True) if not is_short]
    return [torch.cat(vectors), *others]


def _blas_norms(entries: Sequence[Tensor]) -> Tensor:
    """L2 norms of fp32 tensors on a CPU: large ones in one read each, at the speed of BLAS."""
    large = [i for i, t in enumerate(entries) if t.numel() >= LARGE and t.is_contiguous()]
    if not large:
        return torch.stack(torch._foreach_norm(list(entries)))
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
