"""Parts made of rows: output units, or the members of stacked models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cliplab.norms import (
    all_row_norms,
    combine,
    is_sharded,
    local,
    row_norms,
    shard_rows,
)
from cliplab.parts.partition import Gradients, Partition, gradients
from cliplab.parts.units import UnitView, acting

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


class RowParts(Partition):
    """Parts made of rows: each row of each tensor one part, or row ``m`` of all tensors part ``m``.

    ``views[i].shape`` says how tensor ``i`` is seen, ``views[i].dims`` what a row spans.
    """

    def __init__(
        self, params: Sequence[Tensor], views: Sequence[UnitView], *, members: bool = False
    ) -> None:
        self.views, self.members = list(views), members
        self.counts = [math.prod(view.kept) for view in self.views]
        super().__init__(params, self.counts[0] if members else sum(self.counts))
        self._shapes = [view.kept for view in self.views]
        self._dims = [view.dims for view in self.views]
        self._rows_here: dict[tuple[object, ...], Tensor] = {}
        seen = zip(params, self.views, strict=True)
        self._regrouped = [i for i, (p, v) in enumerate(seen) if tuple(p.shape) != v.shape]
        self._few_calls = all(p.numel() for p in self.params)
        for i, (p, view) in enumerate(zip(self.params, self.views, strict=True)):
            if is_sharded(p) and tuple(view.shape) != tuple(p.shape):
                raise ValueError(
                    f"units of a grouped transposed convolution cannot be sharded, got {p.shape}"
                )
            if is_sharded(p):
                self._on_this_rank(i, p)

    def read(self) -> list[Tensor | None]:
        """The gradients as they can be measured: sparse ones by whole rows."""
        return gradients(self.params, rows=True)

    def numels(self) -> Tensor:
        """Number of entries of every part, ``[n_parts]``."""
        each = [p.numel() // max(k, 1) for p, k in zip(self.params, self.counts, strict=True)]
        if self.members:
            return torch.full((self.n_parts,), sum(each), device=self.device)
        sizes, counts = (torch.tensor(given, device="cpu") for given in (each, self.counts))
        return sizes.repeat_interleave(counts).to(self.device)

    def sizes(self, tensors: Gradients, norm_type: float) -> Tensor:
        """Sizes ``[n_parts]`` of tensors that are not sharded: in few calls where all are plain."""
        present = [t for t in tensors if t is not None and t.layout is torch.strided]
        if not self._few_calls or len(present) < len(tensors):
            return super().sizes(tensors, norm_type)
        for i in self._regrouped:
            present[i] = present[i].reshape(self.views[i].shape)
        return all_row_norms(present, self._dims, norm_type, members=self.members)

    def cells(self, tensors: Gradients, norm_type: float) -> list[Tensor]:
        """Norm of every row, ``[k_i]``; of a shard those of its own rows, zero elsewhere."""
        cells = []
        for i, (tensor, view, count) in enumerate(
            zip(tensors, self.views, self.counts, strict=True)
        ):
            if tensor is None:
                norms = torch.zeros(count, dtype=torch.float32, device=self.device)
            elif tensor.layout is torch.sparse_coo:
                rows = row_norms(tensor.values().flatten(1), (1,), norm_type)
                norms = rows.new_zeros(count).index_copy(0, tensor.indices()[0], rows)
            elif is_sharded(tensor):
                rows = row_norms(local(tensor), view.dims, norm_type)
                norms = rows.new_zeros(count)
                norms[self._on_this_rank(i, tensor)] = rows
            else:
                norms = row_norms(tensor.reshape(view.shape), view.dims, norm_type)
            cells.append(norms.to(self.device))
        return cells

    def gather(self, cells: Sequence[Tensor], norm_type: float) -> Tensor:
        """The rows, or their norms over the tensors."""
        if self.members:
            return combine(torch.stack(list(cells)), norm_type)
        return torch.cat(list(cells))

    def spread(self, flags: Tensor) -> Tensor:
        """A row counts as its tensor does; a member, as any of the tensors."""
        if self.members:
            return flags.any().expand(self.n_parts).clone()
        return torch.cat([f.expand(k) for f, k in zip(flags.unbind(), self.counts, strict=True)])

    def scale_(self, tensors: Gradients, factor: Tensor) -> None:
        """Multiply every row by its factor, on a CPU only tensors where some is not 1."""
        changed = acting(factor, [self.n_parts] if self.members else self.counts)
        if self.members and changed:
            changed = range(len(tensors))
        own, rows, factors = self._split(factor), [], []
        for i in changed:
            tensor = tensors[i]
            if tensor is not None:
                seen, each = self._rows(i, tensor, own[i])
                rows.append(seen)
                factors.append(each)
        if rows:
            torch._foreach_mul_(rows, factors)

    def clear_(self, tensors: Gradients, bad: Tensor) -> None:
        """Zero the bad rows."""
        for i, own in enumerate(self._split(bad)):
            tensor = tensors[i]
            if tensor is not None:
                rows, own = self._rows(i, tensor, own)
                rows.masked_fill_(own, 0.0)

    def _split(self, values: Tensor) -> Sequence[Tensor]:
        return [values] * len(self.params) if self.members else torch.split(values, self.counts)

    def _rows(self, i: int, tensor: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Entries of a gradient, and its rows' values broadcastable to them."""
        if own.device != tensor.device:
            own = own.to(tensor.device)
        shape = self._shapes[i]
        if len(shape) == 1 and type(tensor) is Tensor and tensor.layout is torch.strided:
            return tensor, own  # a vector: most tensors are
        if tensor.layout is torch.sparse_coo:
            values = tensor.values()
            return values, own[tensor.indices()[0]].reshape(-1, *[1] * (values.ndim - 1))
        view = self.views[i]
        if is_sharded(tensor):
            rows, tensor = self._on_this_rank(i, tensor), local(tensor)
            shape = UnitView(tuple(tensor.shape), view.dims).kept
            own = own[rows]
        elif len(view.shape) != tensor.ndim:
            tensor = tensor.view(view.shape)
        return tensor, own.reshape(shape)

    def _on_this_rank(self, i: int, tensor: DTensor) -> Tensor:
        """Numbers of the rows that a shard holds, looked up once for each layout of a tensor."""
        layout = (i, tensor.device_mesh, tensor.placements, tensor.device)
        if layout not in self._rows_here:
            axes = [d for d in range(tensor.ndim) if d not in self.views[i].dims]
            one = torch.zeros(1, dtype=torch.long, device=tensor.device)
            self._rows_here[layout] = shard_rows(tensor, axes[0]) if axes else one
        return self._rows_here[layout]
