"""Measuring where nobody looks: on accelerators, in compiled code, inside backpropagation.

Nothing can be measured again there, so powers are summed in fp64 at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cliplab.norms.entries import DOUBLE, kinds, precision


def wide(tensor: Tensor) -> torch.dtype:
    """The widest type to sum a tensor's powers in: fp64; fp32 on mps, which has no fp64."""
    if tensor.device.type == "mps":
        return torch.complex64 if tensor.is_complex() else torch.float32
    return torch.complex128 if tensor.is_complex() else torch.float64


def combine(norms: Tensor, norm_type: float) -> Tensor:
    """Norm over the first axis of norms, summed in fp64 where the device has it.

    >>> combine(torch.tensor([3e30, 4e30]), 2.0)
    tensor(5.0000e+30)
    """
    total: Tensor = torch.linalg.vector_norm(norms, norm_type, dim=0, dtype=wide(norms))
    return total.to(norms.dtype)


def tensor_norms(entries: Sequence[Tensor], norm_type: float) -> Tensor:
    """Norm of every plain tensor, ``[n_tensors]``, on the first one's device."""
    return norms_summed_in(wide, entries, norm_type)


def norms_summed_in(
    kind: Callable[[Tensor], torch.dtype | None], entries: Sequence[Tensor], norm_type: float
) -> Tensor:
    """``tensor_norms`` with powers summed in ``kind(tensor)``, None for the tensor's own dtype."""
    norms: dict[int, Tensor] = {}
    for (device, dtype), bucket in kinds(entries).items():
        full = [i for i in bucket if entries[i].numel()]  # p=inf is undefined for no entries
        norms |= {i: torch.zeros((), dtype=precision(dtype), device=device) for i in bucket}
        if full:
            tensors = [entries[i] for i in full]
            roots = torch._foreach_norm(tensors, norm_type, dtype=kind(tensors[0]))
            values = torch.stack(roots).to(precision(dtype))
            if len(full) == len(entries):
                return values
            norms |= zip(full, values.unbind(), strict=True)
    result = torch.float64 if any(t.dtype in DOUBLE for t in entries) else torch.float32
    place = entries[0].device
    return torch.stack([norms[i].to(place, result) for i in range(len(entries))])


def row_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float) -> Tensor:
    """Norm over ``dims`` of a plain tensor, flattened."""
    return wide_norm(tensor, dims, norm_type).flatten()


def wide_norm(tensor: Tensor, dims: tuple[int, ...], norm_type: float = 2.0) -> Tensor:
    """Norm over ``dims``, which stay as axes of 1; on a CPU without a look too.

    >>> wide_norm(torch.tensor([[3e25, 4e25]]), (-1,))
    tensor([[5.0000e+25]])
    """
    if not dims and tensor.ndim:  # slices of one entry; vector_norm would take no dims for all
        return tensor.abs().to(precision(tensor.dtype))
    sums = wide(tensor)
    norm: Tensor = torch.linalg.vector_norm(tensor, norm_type, dims, keepdim=True, dtype=sums)
    return norm.to(precision(tensor.dtype))
