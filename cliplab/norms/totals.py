"""Measuring: sizes of gradients, overflow-safe and accumulated in at least fp32.

On a CPU the direct sum is looked at, and taken again on scaled entries where it over- or
underflowed. On an accelerator a look would wait for the device: sums are taken in fp64 at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.checks import on_host
from cliplab.norms.entries import HALF, dense
from cliplab.norms.host import _is_safe, _join_vectors, _rescue, combine, direct_norms, local_norms
from cliplab.norms.shards import add_shards, is_sharded


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
