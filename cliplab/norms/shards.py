"""Sharded gradients: what of a DTensor lies on this rank, and how sizes add up over ranks.

``torch.distributed.tensor`` is never imported here: where it is not loaded there is no DTensor.
Every rank must measure the same tensors in the same order; the sums are then the same on all.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The shard on this rank, sharing its memory; a plain tensor itself."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def is_partial(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether ranks hold addends of a gradient that is yet to be summed."""
    return is_sharded(tensor) and any(p.is_partial() for p in tensor.placements)


def reduced(tensor: DTensor) -> Tensor:
    """A DTensor with its addends summed over the ranks (a collective); shards stay shards."""
    from torch.distributed.tensor import Replicate

    placements = [Replicate() if p.is_partial() else p for p in tensor.placements]
    return tensor.redistribute(placements=placements)


def shard_offset(tensor: Tensor, axis: int) -> int:
    """Where on ``axis`` of the whole tensor the shard of this rank begins."""
    if not is_sharded(tensor):
        return 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offset = compute_local_shape_and_global_offset(
        tensor.shape,
        tensor.device_mesh,
        tensor.placements,
    )
    return int(offset[axis])


def shard_groups(tensor: Tensor) -> tuple[Any, ...]:
    """Process groups over which the tensor is split: one for each sharding mesh dimension."""
    if not is_sharded(tensor):
        return ()
    mesh, placements = tensor.device_mesh, tensor.placements
    return tuple(mesh.get_group(i) for i, p in enumerate(placements) if p.is_shard())


def add_shards(
    norms: Sequence[Tensor], tensors: Sequence[Tensor], norm_type: float
) -> list[Tensor]:
    """Norms of whole tensors from those of their shards: ``(sum over ranks n^p)^(1/p)``, in fp64.

    ``norms[i]`` (``[k_i]``) belongs to ``tensors[i]``; one collective a process group.
    """
    whole, together = list(norms), defaultdict(list)
    for i, tensor in enumerate(tensors):
        if groups := shard_groups(tensor):
            together[groups].append(i)
    for groups, indices in together.items():
        values = torch.cat([norms[i] for i in indices]).double()
        if norm_type != math.inf:
            values = values.pow(norm_type)
        _reduce(values, groups, norm_type)
        if norm_type != math.inf:
            values = values.pow(1 / norm_type)
        split = torch.split(values, [norms[i].numel() for i in indices])
        for i, value in zip(indices, split, strict=True):
            whole[i] = value.to(norms[i].dtype)
    return whole


def _reduce(values: Tensor, groups: Sequence[Any], norm_type: float) -> None:
    operation = torch.distributed.ReduceOp
    how = operation.MAX if norm_type == math.inf else operation.SUM
    for group in groups:
        torch.distributed.all_reduce(values, op=how, group=group)
