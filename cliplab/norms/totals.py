"""The door for tensors: sizes of gradients, overflow-safe, summed in fp32 blocks or wider.

Here and in ``rows`` it is decided how: on the host side a plain sum is looked at, and taken again
where it over- or underflowed; on the device side, where a look would wait for the device or break a
graph, sums are taken in fp64 at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.checks import may_look
from cliplab.norms import device, host
from cliplab.norms.blocks import LONG, is_long
from cliplab.norms.device import combine
from cliplab.norms.entries import HALF, dense
from cliplab.norms.shards import add_shards, is_sharded, reduced


def tensor_norms(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of every tensor, ``[n_tensors]``, in the given order; a DTensor counts as a whole.

    ``n_i = (sum_j |g_ij|^p)^(1/p)``, in fp32 for half-precision tensors, right for entries of any
    magnitude.

    Args:
        tensors: of any shape and type.
        norm_type: order p of the norm, > 0; ``inf`` takes the largest entry.

    >>> tensor_norms([torch.tensor([3.0, 4.0]), torch.tensor([1e25, 0.0])])
    tensor([5.0000e+00, 1.0000e+25])
    """
    if not tensors:
        return torch.zeros(0, dtype=torch.float32, device="cpu")
    entries = dense(tensors)
    if entries is not tensors:
        tensors = [reduced(t) for t in tensors]
        entries = dense(tensors)
    measure = host.tensor_norms if may_look(entries[0]) else device.tensor_norms
    norms = measure(entries, norm_type)
    if entries is tensors or not any(map(is_sharded, tensors)):
        return norms
    return torch.cat(add_shards(list(norms.reshape(-1, 1)), tensors, norm_type))


def total_norm(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of all tensors taken as one vector: a scalar; 0 for an empty list.

    Args:
        tensors: of any shape and type.
        norm_type: order p of the norm, > 0; ``inf`` takes the largest entry.

    >>> total_norm([torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])])
    tensor(13.)
    """
    if not tensors:
        return torch.zeros((), dtype=torch.float32, device="cpu")
    entries = dense(tensors)
    whole = entries is tensors or not any(map(is_sharded, tensors))
    if whole and may_look(entries[0]):
        return host.total_norm(entries, norm_type)
    return combine(tensor_norms(tensors, norm_type), norm_type)


def torch_norm(tensors: Sequence[Tensor], norm_type: float) -> Tensor:
    """``total_norm`` by the operations of ``torch.nn.utils``, bit for bit, where these are right.

    They are not for half-precision, mixed, sparse or sharded tensors, overflow and underflow, and
    on a CPU for fp32 tensors of more than ``LONG`` entries.
    """
    full = [t for t in tensors if t.numel()] if norm_type == math.inf else list(tensors)
    kinds = {(t.device, t.dtype, t.layout) for t in full}
    single = len(kinds) == 1 and full[0].dtype not in HALF and full[0].layout is torch.strided
    single = single and not [t for t in full if t.numel() > LONG and is_long(t, t.numel())]
    if single and not any(type(t) is not Tensor and is_sharded(t) for t in full):
        norms = torch._foreach_norm(full, norm_type)
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms), norm_type)
        final = norm_type == math.inf or not may_look(norm)
        if final or host.is_safe(float(norm), norm.dtype, norm_type):
            return norm
    return total_norm(tensors, norm_type)
