"""Measuring on a CPU: plain sums, looked at and, where they overflowed or vanished, taken again."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from cliplab.norms import device
from cliplab.norms.blocks import LONG, block_norms, is_long, pieces
from cliplab.norms.entries import HALF, LARGE, kinds, precision

SHORT = 1 << 12  # entries up to which copying a tensor costs less than a call
FEW = 4  # tensors up to which joining them costs more than a call for each


def total_norm(entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """Norm of plain tensors as one vector: a scalar."""
    entries = _join_vectors(entries)
    norms = plain_norms(entries, norm_type)
    if norm_type != 2:
        return device.combine(_again(norms, entries, norm_type), norm_type)
    total = _hypot(norms)
    if not is_safe(total, norms.dtype, norm_type):
        total = _hypot(_again(norms, entries, norm_type))
    return torch.tensor(total, dtype=norms.dtype, device=norms.device)


def tensor_norms(entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """Norm of every plain tensor, ``[n_tensors]``."""
    return _again(plain_norms(entries, norm_type), entries, norm_type)


def row_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float) -> Tensor:
    """Norm over ``dims`` of a plain tensor, flattened."""
    norms = plain_row_norms(tensor, dims, norm_type)
    bad = unsafe(norms, norm_type)
    return norms if bad is None else rows_again(norms, bad, tensor, dims, norm_type)


def rows_again(
    norms: Tensor, bad: Tensor, tensor: Tensor, dims: tuple[int, ...], norm_type: float
) -> Tensor:
    """The norms of a tensor's rows, with those that are ``bad`` measured on ``row / max|row|``."""
    kept = [d for d in range(tensor.ndim) if d not in dims]
    rows = tensor.permute((*kept, *dims)).reshape(len(norms), -1)[bad]
    largest = plain_row_norms(rows, (1,), math.inf)
    usable = (largest > 0) & largest.isfinite()
    if not bool(usable.any()):  # rows of zeros are common
        return norms
    divisor = largest[usable]
    scaled = plain_row_norms(rows[usable] / divisor[:, None], (1,), norm_type) * divisor
    return norms.masked_scatter(bad, norms[bad].masked_scatter(usable, scaled))


def plain_norms(entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """``tensor_norms`` without a look."""
    single = torch.float32
    blas = norm_type == 2 and not [t for t in entries if t.dtype is not single or not t.is_cpu]
    norms = _largest_of_each(entries) if norm_type == math.inf else {}
    large = [i for i, t in enumerate(entries) if t.numel() >= LARGE and i not in norms]
    if not large and not norms:
        return _in_few_calls(entries, norm_type, blas)
    for i in large:
        if is_long(entries[i], entries[i].numel()):
            norms[i] = block_norms(entries[i], tuple(range(entries[i].ndim)), norm_type)
    if blas and (dotted := [i for i in large if i not in norms and entries[i].is_contiguous()]):
        flat = [entries[i].view(-1) for i in dotted]  # in one read each, at the speed of BLAS
        squares = torch.stack([torch.dot(t, t) for t in flat])
        norms |= zip(dotted, squares.sqrt().unbind(), strict=True)
    if others := [i for i in range(len(entries)) if i not in norms]:
        rest = _in_few_calls([entries[i] for i in others], norm_type, blas)
        norms |= zip(others, rest.to(entries[0].device).unbind(), strict=True)
    return torch.stack([norms[i] for i in range(len(entries))])


def plain_row_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float) -> Tensor:
    """``row_norms`` without a look."""
    if not tensor.is_cpu:
        return device.row_norms(tensor, dims, norm_type)
    if not dims:  # rows of one entry; vector_norm would take no dims for all
        tensor, dims = tensor.unsqueeze(-1), (tensor.ndim,)
    if norm_type == math.inf and _has_order(tensor):
        norms = _largest(tensor, dims)
    elif tensor.numel() > LONG and is_long(tensor, math.prod([tensor.shape[d] for d in dims])):
        norms = block_norms(tensor, dims, norm_type)
    else:
        norms = torch.linalg.vector_norm(tensor, norm_type, dims, dtype=_own(tensor))
    return norms if norms.ndim == 1 else norms.flatten()


def unsafe(norms: Tensor, norm_type: float) -> Tensor | None:
    """Mask of the norms that overflowed or may have lost entries (NaN is final); None for none."""
    if norm_type == math.inf:
        return None
    smallest = _smallest(norms.dtype, norm_type)
    low, high = norms.aminmax()
    if float(low) >= smallest and float(high) < math.inf:
        return None
    safe = ((norms >= smallest) & (norms < math.inf)) | norms.isnan()
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
            kind, norm = device.wide(tensor), torch.linalg.vector_norm
            each = [norm(piece.to(kind) / largest, norm_type) for piece in pieces(tensor)]
            values[i] = float(norm(torch.stack(each), norm_type)) * largest
    return torch.tensor(values, dtype=norms.dtype, device=norms.device) if bad else norms


def is_safe(norm: float, dtype: torch.dtype, norm_type: float) -> bool:
    """Neither overflowed nor too small (NaN is final: safe; 0 may be either)."""
    return norm != norm or _smallest(dtype, norm_type) <= norm < math.inf


@cache
def _smallest(dtype: torch.dtype, norm_type: float) -> float:
    """Norms below this may have lost entries whose powers are too small."""
    info = torch.finfo(dtype)
    return (info.tiny / info.eps**2) ** (1 / norm_type)  # type: ignore[no-any-return]


def _hypot(norms: Tensor) -> float:
    """L2 norm of norms in fp64; NaN where one is, which ``math.hypot`` forgets beside inf."""
    values = norms.tolist()
    total = math.hypot(*values)
    return sum(values) if total == math.inf else total


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


def _in_few_calls(entries: Sequence[Tensor], norm_type: float, blas: bool) -> Tensor:
    """``plain_norms`` of tensors that are not large; short ones of a shape as rows of one."""
    if not blas:
        return device.norms_summed_in(_own, entries, norm_type)
    alike, alone = defaultdict(list), []
    for i, tensor in enumerate(entries):
        if 0 < tensor.numel() <= SHORT and tensor.ndim and tensor.is_contiguous():
            alike[tensor.shape].append(i)
        else:
            alone.append(i)
    joined = []
    for group in alike.values():
        if len(group) > FEW:
            rows = torch.cat([entries[i] for i in group]).view(len(group), -1)
            joined.append((group, torch.linalg.vector_norm(rows, 2.0, 1)))
        else:
            alone += group
    if not joined:
        return torch.stack(torch._foreach_norm(list(entries)))
    if alone:
        joined.append((alone, torch.stack(torch._foreach_norm([entries[i] for i in alone]))))
    order = torch.tensor([i for group, _ in joined for i in group], device="cpu")
    norms = torch.cat([own for _, own in joined])
    return norms.new_empty(len(norms)).index_copy_(0, order, norms)


def _largest_of_each(entries: Sequence[Tensor]) -> dict[int, Tensor]:
    """Largest magnitudes, by position, of the tensors where comparing finds it."""
    found: dict[int, Tensor] = {}
    for (_, dtype), bucket in kinds(entries).items():
        if ordered := [i for i in bucket if _has_order(entries[i]) and entries[i].numel()]:
            pairs = [_extremes(entries[i]) for i in ordered]
            low, high = (torch.stack(ends) for ends in zip(*pairs, strict=True))
            largest = torch.maximum(high, low.neg_()).abs_()
            largest = largest.to(entries[0].device, precision(dtype))
            found |= zip(ordered, largest.unbind(), strict=True)
    return found


def _extremes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest entry: in one call, or the sooner in two where it is large."""
    if tensor.numel() >= LARGE:
        return tensor.amin(), tensor.amax()
    return torch.aminmax(tensor)


def _has_order(tensor: Tensor) -> bool:
    """Whether a tensor's largest entry is found by comparing: at several times the speed."""
    return tensor.is_cpu and not tensor.is_complex()


def _largest(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Largest magnitude over ``dims``."""
    largest = torch.maximum(tensor.amax(dims), tensor.amin(dims).neg_())
    return largest.abs_().to(precision(tensor.dtype))
