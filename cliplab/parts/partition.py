"""Partitioning: which entries of which gradients are measured and clipped as one part.

Every tensor has cells (one, or one for each of its rows), and every cell belongs to a part. The
parts are fixed at construction; a tensor without a gradient has size zero and is not active.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.norms import (
    add_shards,
    check_layout,
    is_partial,
    is_sharded,
    local,
    reduced,
)

Gradients = Sequence[Tensor | None]


def gradients(params: Sequence[Tensor], *, rows: bool = False) -> list[Tensor | None]:
    """Gradients as they can be measured: sparse ones coalesced, addends of ranks summed.

    ``rows``: sparse gradients must store whole rows; any other becomes dense.
    """
    strided = torch.strided
    found = [p.grad for p in params]
    for i, grad in enumerate(found):
        if grad is not None and (type(grad) is not Tensor or grad.layout is not strided):
            if is_sharded(grad) and not is_sharded(params[i]):
                raise ValueError("a plain parameter has a DTensor as its gradient: shard both")
            settled = _settle(grad, rows)
            if settled is not grad:
                params[i].grad = found[i] = settled
    return found


def _settle(grad: Tensor, rows: bool) -> Tensor:
    if is_partial(grad):
        return reduced(grad)
    if rows and grad.layout is not torch.strided and not _stores_rows(grad):
        return grad.to_dense()
    if grad.layout is torch.sparse_coo and not grad.is_coalesced():
        return grad.coalesce()
    return grad


def _stores_rows(grad: Tensor) -> bool:
    return grad.layout is torch.sparse_coo and grad.sparse_dim() == 1


class Partition:
    """The parts of a list of tensors; a subclass says which cells a tensor has.

    ``names`` are the tensors' own, None where one has none. ``sharded``: some are DTensors;
    ``shared``: other ranks hold some of the parts, too.
    """

    def __init__(self, params: Sequence[Tensor], n_parts: int) -> None:
        self.params, self.n_parts = list(params), n_parts
        self.names: Sequence[str | None] = [None] * len(self.params)
        check_layout(self.params)
        self.shared = self.sharded = any(map(is_sharded, self.params))
        self.device = local(self.params[0]).device
        self._masks: dict[tuple[int, ...], Tensor] = {}

    def read(self) -> list[Tensor | None]:
        """The gradients as they can be measured."""
        return gradients(self.params)

    def measure(self, tensors: Gradients, norm_type: float) -> tuple[Tensor, Tensor, bool]:
        """Sizes ``[n_parts]``, the mask of the parts that have a gradient on any rank, and whether
        all are known to have one.
        """
        missing = tuple([i for i, t in enumerate(tensors) if t is None])
        if not self.sharded:
            if missing not in self._masks:
                self._masks[missing] = self._mask(missing)
            return self.sizes(tensors, norm_type), self._masks[missing], not missing
        present = [t is not None for t in tensors]
        cells = self.cells(tensors, norm_type)
        marks = [c.new_full((1,), float(flag)) for c, flag in zip(cells, present, strict=True)]
        shards = [torch.cat(pair) for pair in zip(cells, marks, strict=True)]
        where = [p if t is None else t for p, t in zip(self.params, tensors, strict=True)]
        whole = add_shards(shards, where, norm_type)
        sizes = self.gather([cell[:-1] for cell in whole], norm_type)
        return sizes, self.spread(torch.stack([cell[-1] > 0 for cell in whole])), False

    def _mask(self, missing: tuple[int, ...]) -> Tensor:
        if len(self._masks) > 64:
            self._masks.clear()
        flags = [i not in missing for i in range(len(self.params))]
        return self.spread(torch.tensor(flags, device=self.device))

    def numels(self) -> Tensor:
        """Number of entries of every part, ``[n_parts]``."""
        raise NotImplementedError

    def sizes(self, tensors: Gradients, norm_type: float) -> Tensor:
        """Sizes ``[n_parts]`` of tensors that are not sharded."""
        return self.gather(self.cells(tensors, norm_type), norm_type)

    def cells(self, tensors: Gradients, norm_type: float) -> list[Tensor]:
        """Sizes of every tensor's cells, ``[k_i]`` each: of what lies on this rank."""
        raise NotImplementedError

    def gather(self, cells: Sequence[Tensor], norm_type: float) -> Tensor:
        """Sizes of parts, ``[n_parts]``, from those of cells."""
        raise NotImplementedError

    def spread(self, flags: Tensor) -> Tensor:
        """Whether any tensor of a part is flagged: ``[n_tensors] -> [n_parts]``."""
        raise NotImplementedError

    def scale_(self, tensors: Gradients, factor: Tensor) -> None:
        """Multiply every part by its factor."""
        raise NotImplementedError

    def clear_(self, tensors: Gradients, bad: Tensor) -> None:
        """Zero the parts that are bad (0 x NaN would stay NaN)."""
        raise NotImplementedError

    def clamp_(self, tensors: Gradients, limits: Tensor) -> None:
        """Clamp every entry to the limit of its part, a complex one to that magnitude."""
        raise NotImplementedError
