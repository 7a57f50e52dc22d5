"""Sharded gradients: what of a DTensor lies on this rank, and how sizes add up over ranks.

``torch.distributed.tensor`` is never imported here: where it is not loaded there is no DTensor.
Every rank must measure the same tensors in the same order; the sums are then the same on all.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

SAFE_ORDER = 6.0  # up to it fp64 holds the powers of all fp32 norms


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The shard on this rank, sharing its memory; a plain tensor itself."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def laid_out_as(values: Tensor, tensor: Tensor) -> Tensor:
    """Values of this rank as a tensor that lies over the ranks as ``tensor`` does."""
    if not is_sharded(tensor):
        return values
    from torch.distributed.tensor import DTensor

    mesh, placements = tensor.device_mesh, tensor.placements
    size, stride = tensor.shape, tensor.stride()
    return DTensor.from_local(values, mesh, placements, run_check=False, shape=size, stride=stride)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor on every rank (a collective for a DTensor); a plain tensor itself."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def is_partial(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether ranks hold addends of a gradient that is yet to be summed."""
    return is_sharded(tensor) and any(p.is_partial() for p in tensor.placements)


@overload
def reduced(tensor: DTensor) -> DTensor: ...
@overload
def reduced(tensor: Tensor) -> Tensor: ...
def reduced(tensor: Tensor) -> Tensor:
    """A DTensor with its addends summed over the ranks (a collective); shards stay shards.

    Raises ``ValueError`` where they are to be reduced in another way than a gradient's.
    """
    if not is_partial(tensor):
        return tensor
    from torch.distributed.tensor import Replicate

    for p in tensor.placements:
        if p.is_partial() and getattr(p, "reduce_op", "sum") not in ("sum", "avg"):
            raise ValueError(f"addends of a gradient are summed or averaged, got placement {p}")
    placements = [Replicate() if p.is_partial() else p for p in tensor.placements]
    return tensor.redistribute(placements=placements)


def check_layout(params: Sequence[Tensor]) -> None:
    """``ValueError`` for parameters of which this rank cannot know how they lie over the ranks."""
    for p in params:
        if type(p) not in (Tensor, torch.nn.Parameter):
            shard_groups(p)
    if "torch.distributed.fsdp" not in sys.modules or not torch.distributed.is_initialized():
        return
    flat = any(getattr(p, "_fsdp_flattened", False) for p in params)
    if flat and torch.distributed.get_world_size() > 1:
        raise ValueError(
            "FullyShardedDataParallel hides how its parameters are sharded: use fully_shard, or "
            "clip by the wrapper's own clip_grad_norm_"
        )


def shard_rows(tensor: DTensor, axis: int) -> Tensor:
    """Indices along ``axis`` of the whole tensor that lie on this rank, in their order: ``[k]``.

    Mesh dimensions split one after the other, each in ``torch.chunk``'s pieces. A strided shard
    (FSDP over tensor parallelism) splits first what the dimensions after it will split, and takes
    a piece of each part: its rows are not one run. Raises ``ValueError`` for a shard of another
    length.
    """
    rows = torch.arange(tensor.shape[axis], device="cpu")
    mesh, here = tensor.device_mesh, _coordinate(tensor)
    for i, placement in enumerate(tensor.placements):
        if _split_axis(placement) == axis:
            parts = rows.chunk(getattr(placement, "split_factor", 1))
            rows = torch.cat([_piece(part, mesh.size(i), here[i]) for part in parts])
    length = local(tensor).shape[axis]
    if len(rows) != length:
        raise ValueError(
            f"the shard of this rank has {length} rows where {tensor.placements} gives {len(rows)}"
        )
    return rows.to(local(tensor).device)


def _piece(rows: Tensor, count: int, index: int) -> Tensor:
    pieces = rows.chunk(count)  # fewer where the rows do not go round
    return pieces[index] if index < len(pieces) else rows[:0]


def _split_axis(placement: Any) -> int | None:
    """The axis that a mesh dimension splits, if any; a strided shard is none to ``is_shard``."""
    if placement.is_replicate() or placement.is_partial():
        return None
    if placement.is_shard() or hasattr(placement, "split_factor"):
        return int(placement.dim)
    raise ValueError(f"expected a DTensor that is replicated, sharded or partial, got {placement}")


def shard_groups(tensor: Tensor, dims: Sequence[int] | None = None) -> tuple[Any, ...]:
    """Process groups over which the tensor, or one of its axes ``dims``, is split.

    There is one for each sharding mesh dimension, in the order of the mesh.
    Raises ``ValueError`` on a rank outside the tensor's mesh, and for an unknown placement.
    """
    if not is_sharded(tensor):
        return ()
    _coordinate(tensor)
    mesh = tensor.device_mesh
    axes = map(_split_axis, tensor.placements)
    return tuple(
        mesh.get_group(i)
        for i, axis in enumerate(axes)
        if axis is not None and (dims is None or axis in dims)
    )


def _coordinate(tensor: DTensor) -> Sequence[int]:
    here = tensor.device_mesh.get_coordinate()
    if here is None:
        raise ValueError("this rank is not in the mesh of a DTensor: it cannot know its norm")
    return here


def add_shards(
    norms: Sequence[Tensor], tensors: Sequence[Tensor], norm_type: float
) -> list[Tensor]:
    """Norms of whole tensors from those of their shards: ``(sum over ranks n^p)^(1/p)``, in fp64.

    ``norms[i]`` (``[k_i]``) belongs to ``tensors[i]``; one collective a process group, and one
    more where powers could leave the range of fp64.
    """
    full, together = list(norms), defaultdict(list)
    for i, tensor in enumerate(tensors):
        if groups := shard_groups(tensor):
            together[groups].append(i)
    for groups, indices in together.items():
        values = torch.cat([norms[i] for i in indices]).double()
        wide = _is_wide([tensors[i] for i in indices], norm_type)
        total = _over_ranks(values, groups, norm_type, wide)
        split = torch.split(total, [norms[i].numel() for i in indices])
        for i, value in zip(indices, split, strict=True):
            full[i] = value.to(norms[i].dtype)
    return full


def add_slices(norms: Tensor, tensor: Tensor, dims: Sequence[int], norm_type: float) -> Tensor:
    """Norms over the axes ``dims`` of whole slices, from those of what this rank has of them."""
    groups = shard_groups(tensor, dims)
    if not groups:
        return norms
    wide = _is_wide([tensor], norm_type)
    return _over_ranks(norms.double(), groups, norm_type, wide).to(norms.dtype)


def over_ranks(norms: Tensor, group: Any, norm_type: float) -> Tensor:
    """Norms of what all ranks of a group hold, from those of each: ``[k]`` in fp64, a collective.

    Every rank gets all and adds them up itself, in one order: a sum on the way might round in
    another way on another rank.
    """
    each = [torch.empty_like(norms) for _ in range(torch.distributed.get_world_size(group))]
    torch.distributed.all_gather(each, norms.contiguous(), group=group)
    return add_norms(torch.stack(each), norm_type)


def add_norms(norms: Tensor, norm_type: float) -> Tensor:
    """Norm over the first axis of norms in fp64, whose powers may leave its range.

    >>> add_norms(torch.tensor([[3e200], [4e200]], dtype=torch.float64), 2.0)
    tensor([5.0000e+200], dtype=torch.float64)
    """
    largest = norms.amax(dim=0)
    if norm_type == math.inf:
        return largest
    divisor = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    return divisor * (norms / divisor).pow(norm_type).sum(dim=0).pow(1 / norm_type)


def _is_wide(tensors: Sequence[Tensor], norm_type: float) -> bool:
    """Whether powers of norms could leave the range of fp64; all ranks must say the same."""
    return norm_type > SAFE_ORDER or any(t.dtype.itemsize > 4 for t in tensors)


def _over_ranks(values: Tensor, groups: Sequence[Any], norm_type: float, wide: bool) -> Tensor:
    """Norms over the ranks; ``wide``: whose powers could leave the range of fp64."""
    if norm_type == math.inf:
        return _largest(values, groups)
    if wide:
        largest = _largest(values, groups)
        divisor = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
        return divisor * _over_ranks(values / divisor, groups, norm_type, wide=False)
    powers = values.pow(norm_type)
    for group in groups:
        torch.distributed.all_reduce(powers, group=group)
    return powers.pow(1 / norm_type)


def _largest(values: Tensor, groups: Sequence[Any]) -> Tensor:
    """The largest value over the ranks, NaN where any is: MAX alone keeps a NaN or loses it."""
    unknown = values.isnan()
    both = torch.stack([values.masked_fill(unknown, 0.0), unknown.to(values.dtype)])
    for group in groups:
        torch.distributed.all_reduce(both, op=torch.distributed.ReduceOp.MAX, group=group)
    return both[0].masked_fill(both[1] > 0, math.nan)
