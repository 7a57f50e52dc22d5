"""Measuring where no value may be looked at: on accelerators, and in compiled code.

Nothing can be measured again there, so powers are summed in fp64 at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.norms.entries import DOUBLE


def wide_norm(
    tensor: Tensor,
    norm_type: float = 2.0,
    dims: tuple[int, ...] | None = None,
    *,
    keepdim: bool = False,
) -> Tensor:
    """Norm over ``dims`` (all for None) summed in fp64; fp32 unless the tensor is fp64.

    >>> wide_norm(torch.tensor([3e25, 4e25]))
    tensor(5.0000e+25)
    """
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    if tensor.device.type == "mps":
        wide = torch.complex64 if tensor.is_complex() else torch.float32
    if dims == () and tensor.ndim:  # slices of one entry; vector_norm would take no dims for all
        return tensor.abs().to(torch.float64 if tensor.dtype in DOUBLE else torch.float32)
    norm: Tensor = torch.linalg.vector_norm(tensor, norm_type, dims, keepdim=keepdim, dtype=wide)
    return norm if tensor.dtype in DOUBLE else norm.float()


def wide_total_norm(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of all entries of plain tensors as one vector: a scalar; 0 for none.

    >>> wide_total_norm([torch.tensor([3e25]), torch.tensor([4e25])])
    tensor(5.0000e+25)
    """
    full = [t for t in tensors if t.numel()]  # inf is undefined for no entries
    if not full:
        return torch.zeros((), device=tensors[0].device if tensors else None)
    norms = [wide_norm(t, norm_type).to(full[0].device) for t in full]
    return wide_norm(torch.cat([norm.reshape(1) for norm in norms]), norm_type)
