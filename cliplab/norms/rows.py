"""Norms of the rows of one tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.checks import on_host
from cliplab.norms.entries import DOUBLE
from cliplab.norms.host import _wide, combine, safe


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
