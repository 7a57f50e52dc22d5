"""Long sums on a CPU: in short blocks of a tensor, whose norms are then taken together in fp64.

One fp32 sum of very many entries rounds off more the longer it is, and in the end stagnates: 1
added to 2^24 is lost. Accelerators sum by trees, and CPUs one entry after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cliplab.norms.entries import DOUBLE, HALF

LONG = 1 << 20  # entries up to which one sum is taken
BLOCK = 1 << 8  # entries summed one after the other: a norm's error stays below 1e-5
LANES = 1 << 4  # squares of entries that lie side by side are added up in so many sums or more


def is_long(tensor: Tensor, length: int) -> bool:
    """Whether a sum of ``length`` entries of a tensor must be taken in blocks."""
    return length > LONG and tensor.is_cpu and tensor.dtype not in DOUBLE


def block_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float) -> Tensor:
    """Norm in fp32 over ``dims``, at least one, of a plain tensor in any layout, without a copy.

    The shape is that of the other axes.
    """
    if len(dims) == tensor.ndim and tensor.is_contiguous():
        return _wide_norms(tensor.view(-1), 0, norm_type).float()
    kept = [d for d in range(tensor.ndim) if d not in dims]
    inwards = sorted(dims, key=tensor.stride, reverse=True)
    rows = tensor.permute(*kept, *inwards)
    if rows[(0,) * len(kept)].is_contiguous():
        rows = rows.flatten(len(kept))
    return _wide_norms(rows, len(kept), norm_type).float()


def _wide_norms(rows: Tensor, first: int, norm_type: float) -> Tensor:
    """Norms in fp64 over the axes from ``first`` on, the innermost last."""
    block, axis, inside = BLOCK, rows.ndim, 1
    side_by_side = rows.stride(-1) == 1 and rows.shape[-1] >= BLOCK * LANES
    if norm_type == 2 and side_by_side and not rows.is_complex():
        block *= LANES
    while axis > first and inside * rows.shape[axis - 1] <= block:
        axis -= 1
        inside *= rows.shape[axis]
    kind = torch.float32 if rows.dtype in HALF else None
    if axis == first:
        inner = tuple(range(first, rows.ndim))
        norms: Tensor = torch.linalg.vector_norm(rows, norm_type, inner, dtype=kind)
        return norms.double()
    axis -= 1
    size = block // inside
    whole = rows.shape[axis] // size * size
    blocks = torch.unflatten(rows.narrow(axis, 0, whole), axis, (-1, size))
    inner = tuple(range(axis + 1, blocks.ndim))
    norms = torch.linalg.vector_norm(blocks, norm_type, inner, dtype=kind).double()
    outer = tuple(range(first, norms.ndim))
    norms = torch.linalg.vector_norm(norms, norm_type, outer)
    if whole == rows.shape[axis]:
        return norms
    rest = _wide_norms(rows.narrow(axis, whole, rows.shape[axis] - whole), first, norm_type)
    norms = torch.linalg.vector_norm(torch.stack([norms, rest]), norm_type, 0)
    return norms


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """Views of at most ``LONG`` entries that make up a tensor."""
    if tensor.numel() <= LONG:
        yield tensor
        return
    axis = max(range(tensor.ndim), key=tensor.size)
    for half in tensor.tensor_split(2, axis):
        yield from pieces(half)
