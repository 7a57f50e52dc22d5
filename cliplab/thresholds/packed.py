"""A percentile's state as it is saved, without the room that is left in it, and back.

What grows is in lists: ``torch.distributed.checkpoint`` loads tensors into those of a state that is
made for it, and they must be as large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import described
from cliplab.thresholds.base import State, as_tensor


def pack(state: State) -> dict[str, Any]:
    """A state with a list for each part of its sorted sizes, and of its bins that hold any.

    ``ordered [[size, ...], ...]`` are the sizes that limits still depend on, ``bins [[[bin, how
    often], ...], ...]`` the histogram. ``blocks`` follow from it.
    """
    ordered, bins = state["ordered"].cpu(), state["bins"].flatten(1).cpu()
    used = _used(state["count"], ordered.shape[1]).tolist()
    met = [row.nonzero()[:, 0] for row in bins]
    return {
        "count": state["count"],
        "ordered": [row[:n].tolist() for row, n in zip(ordered, used, strict=True)],
        "bins": [torch.stack([at, row[at]], 1).tolist() for row, at in zip(bins, met, strict=True)],
    }


def unpack(state: Mapping[str, Any], own: State) -> dict[str, Any]:
    """A packed state as it lies in memory, like ``own``; ``ValueError`` for lists that are not."""
    ordered = torch.full_like(own["ordered"], math.inf, device="cpu")
    bins = torch.zeros_like(own["bins"], device="cpu")
    for name, whole, put in (("ordered", ordered, _put_sizes), ("bins", bins, _put_bins)):
        lists = state[name]
        fine = isinstance(lists, list) and len(lists) == len(whole)
        if not fine or not all(map(put, whole.flatten(1), lists)):
            raise ValueError(
                f"Percentile: {name} must be a list for each of {len(whole)} parts, as it was "
                f"saved, got {described(lists)}"
            )
    return {**state, "ordered": ordered, "bins": bins, "blocks": bins.sum(2, dtype=torch.int32)}


def contradicts_itself(state: Mapping[str, Any]) -> bool:
    """Whether a whole state holds other than as many sizes as it counts."""
    count, ordered = as_tensor(state["count"]), as_tensor(state["ordered"])
    used, held = _used(count, ordered.shape[1]), ordered.isfinite().sum(dim=1)
    met = as_tensor(state["blocks"]).sum(dim=1)
    return bool(((used != held) & (used > 0) | (met != count)).any())


def _used(count: Tensor, room: int) -> Tensor:
    """How many of the sorted sizes limits still depend on, of every part."""
    return count.where(count <= room, 0)


def _put_sizes(row: Tensor, sizes: object) -> bool:
    """Begin a row ``[room]`` with sizes; False if they are none."""
    given = _numbers(sizes)
    if given is None or given.ndim != 1 or len(given) > len(row):
        return False
    row[: len(given)] = given
    return True


def _put_bins(row: Tensor, pairs: object) -> bool:
    """Put pairs of a bin and how often it was met into a row ``[bins]``; False if they are none."""
    given = _numbers(pairs)
    if given is None or (given.is_floating_point() and len(given)):
        return False
    if given.shape not in ((0,), (len(given), 2)):
        return False
    at, often = given.long().reshape(-1, 2).unbind(1)
    if not bool(((at >= 0) & (at < len(row)) & (often >= 0)).all()):
        return False
    row.index_put_((at,), often.to(row), accumulate=True)
    return True


def _numbers(given: object) -> Tensor | None:
    """A list as a tensor, None for what is no list of numbers."""
    if not isinstance(given, list):
        return None
    try:
        return as_tensor(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
