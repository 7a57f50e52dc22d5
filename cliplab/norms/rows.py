"""The door for rows: norms over some axes of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from cliplab.checks import may_look
from cliplab.norms import device, host
from cliplab.norms.device import combine
from cliplab.norms.entries import precision
from cliplab.norms.shards import add_shards, is_sharded, local, reduced, shard_rows

Dims = Sequence[tuple[int, ...]]


def row_norms(tensor: Tensor, dims: tuple[int, ...], norm_type: float = 2.0) -> Tensor:
    """Norm over ``dims`` of a plain tensor: one entry, flattened, for every index of the others.

    >>> row_norms(torch.tensor([[3.0, 4.0], [0.0, 1e-25]]), (1,))
    tensor([5.0000e+00, 1.0000e-25])
    """
    if not tensor.numel():
        count = torch.Size([size for d, size in enumerate(tensor.shape) if d not in dims]).numel()
        return torch.zeros(count, device=tensor.device, dtype=precision(tensor.dtype))
    if may_look(tensor):
        return host.row_norms(tensor, dims, norm_type)
    return device.row_norms(tensor, dims, norm_type)


def member_norms(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of each member of stacked tensors ``[members, ...]``: ``[members]``.

    Member ``m``'s size is the norm over ``tensor[m]`` of all tensors.

    Args:
        tensors: each ``[members, ...]``.
        norm_type: order p of the norm, > 0; ``inf`` takes the largest entry.

    >>> member_norms([torch.tensor([[3.0], [0.0]]), torch.tensor([[4.0], [2.0]])])
    tensor([5., 2.])
    """
    rows = [_members(t, norm_type) for t in tensors if t.numel()]
    return combine(torch.stack(rows), norm_type)


def _members(tensor: Tensor, norm_type: float) -> Tensor:
    if not is_sharded(tensor):
        return row_norms(tensor.reshape(len(tensor), -1), (1,), norm_type)
    summed = reduced(tensor)
    here = row_norms(local(summed), tuple(range(1, tensor.ndim)), norm_type)
    norms = here.new_zeros(len(tensor))
    norms[shard_rows(summed, 0)] = here
    return add_shards([norms], [summed], norm_type)[0]


def all_row_norms(
    tensors: Sequence[Tensor], dims: Dims, norm_type: float = 2.0, *, members: bool = False
) -> Tensor:
    """``row_norms`` of plain tensors, none empty, one after the other: ``[n_rows]``.

    ``members``: row ``m`` of all tensors as one, ``[members]``. In few calls, since models have
    many tensors: plain sums first, and on a CPU one look at what they give for all.

    >>> all_row_norms([torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.ones(4)], [(1,), (0,)])
    tensor([5., 2., 2.])
    """
    place, looks = tensors[0].device, may_look(tensors[0])
    of_tensors, of_rows = device.tensor_norms, device.row_norms
    if looks:
        of_tensors, of_rows = host.plain_norms, host.plain_row_norms
    whole = [len(own) == t.ndim and not members for t, own in zip(tensors, dims, strict=True)]
    vectors = [t for t, is_whole in zip(tensors, whole, strict=True) if is_whole]
    each = iter(of_tensors(vectors, norm_type).reshape(-1, 1).unbind() if vectors else ())
    cells = [
        next(each) if is_whole else of_rows(t, own, norm_type).to(place)
        for t, own, is_whole in zip(tensors, dims, whole, strict=True)
    ]
    norms = _together(cells, norm_type, members)
    bad = host.unsafe(norms, norm_type) if looks else None
    if bad is None:
        return norms
    if members:
        each_again = [row_norms(t, own, norm_type) for t, own in zip(tensors, dims, strict=True)]
        return _together([cell.to(place) for cell in each_again], norm_type, members)
    counts = [len(cell) for cell in cells]
    own = torch.split(bad, counts)
    for i in flagged(bad, counts):
        if tensors[i].is_cpu:
            cells[i] = host.rows_again(cells[i], own[i], tensors[i], dims[i], norm_type)
    return _together(cells, norm_type, members)


def flagged(flags: Tensor, counts: Sequence[int]) -> list[int]:
    """Which of the runs of flags, ``counts[i]`` in a row each, hold one: in a single look.

    >>> flagged(torch.tensor([False, False, True]), [2, 1])
    [1]
    """
    ends = torch.tensor([0, *accumulate(counts)], device="cpu")
    until = torch.nn.functional.pad(flags.cumsum(0), (1, 0))[ends].tolist()
    return [i for i in range(len(counts)) if until[i] < until[i + 1]]


def _together(cells: Sequence[Tensor], norm_type: float, members: bool) -> Tensor:
    if members:
        return combine(torch.stack(list(cells)), norm_type)
    return torch.cat(list(cells))
