"""Parts made of whole tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from cliplab.checks import may_look
from cliplab.norms import clamp_, combine, dense, in_range, scale_, tensor_norms, total_norm
from cliplab.parts.partition import Gradients, Partition

Value = TypeVar("Value")


class TensorParts(Partition):
    """Parts made of whole tensors: ``runs[i]`` tensors in a row are part ``i``, if none it is 0."""

    def __init__(self, params: Sequence[Tensor], runs: Sequence[int]) -> None:
        super().__init__(params, len(runs))
        self.runs = list(runs)
        self._single = all(run == 1 for run in self.runs)

    def numels(self) -> Tensor:
        """Number of entries of every part, ``[n_parts]``."""
        each = iter(p.numel() for p in self.params)
        return torch.tensor([sum(islice(each, run)) for run in self.runs], device=self.device)

    def sizes(self, tensors: Gradients, norm_type: float) -> Tensor:
        """Sizes ``[n_parts]`` of tensors that are not sharded."""
        if self.n_parts > 1:
            return super().sizes(tensors, norm_type)
        present = [t for t in tensors if t is not None]
        if not present:
            return torch.zeros(1, dtype=torch.float32, device=self.device)
        total = total_norm(present, norm_type).view(1)
        return total if tensors[0] is not None else total.to(self.device)

    def cells(self, tensors: Gradients, norm_type: float) -> list[Tensor]:
        """Norm of every tensor, ``[1]`` each."""
        present = dense([t for t in tensors if t is not None])
        if not present:
            nothing = torch.zeros(1, dtype=torch.float32, device=self.device)
            return [nothing for _ in tensors]
        norms = tensor_norms(present, norm_type).to(self.device).reshape(-1, 1)
        nothing, each = norms.new_zeros(1), iter(norms.unbind())
        return [nothing if t is None else next(each) for t in tensors]

    def gather(self, cells: Sequence[Tensor], norm_type: float) -> Tensor:
        """Norms over the tensors of each part."""
        norms = torch.cat(list(cells))
        if self._single:
            return norms
        parts = torch.split(norms, self.runs)
        return torch.stack([combine(p, norm_type) if len(p) else p.sum() for p in parts])

    def spread(self, flags: Tensor) -> Tensor:
        """Any of a part's tensors."""
        return torch.stack([part.any() for part in torch.split(flags, self.runs)])

    def own(self, values: Tensor) -> list[Tensor]:
        """Every tensor's own value, a scalar."""
        return self._runs_of(values.unbind())

    def _runs_of(self, each: Sequence[Value]) -> list[Value]:
        """What every tensor has of its part: a part's, once for each of its tensors."""
        return [v for v, run in zip(each, self.runs, strict=True) for _ in range(run)]

    def scale_(self, tensors: Gradients, factor: Tensor) -> None:
        """Multiply every tensor by the factor of its part, on a CPU only where it is not 1."""
        if self.n_parts == 1:
            scale_([t for t in tensors if t is not None], factor[0])
            return
        if not may_look(factor):
            for tensor, own in zip(tensors, self.own(factor), strict=True):
                if tensor is not None:
                    own = in_range(own, tensor.dtype)
                    dense([tensor])[0].mul_(own.to(tensor.device))
            return
        each = zip(tensors, self.own(factor), self._runs_of(factor.tolist()), strict=True)
        pairs = [(t, own) for t, own, number in each if t is not None and number != 1]
        if pairs:  # by tensors: a number would be rounded to half precision first
            factors = [own.to(t.device) for t, own in pairs]
            torch._foreach_mul_(list(dense([t for t, _ in pairs])), factors)

    def clear_(self, tensors: Gradients, bad: Tensor) -> None:
        """Zero the tensors of bad parts."""
        for tensor, own in zip(tensors, self.own(bad), strict=True):
            if tensor is not None:
                dense([tensor])[0].masked_fill_(own.to(tensor.device), 0.0)

    def clamp_(self, tensors: Gradients, limits: Tensor) -> None:
        """Clamp every entry to the limit of its part, a complex one to that magnitude."""
        for tensor, own in zip(tensors, self.own(limits), strict=True):
            if tensor is not None:
                clamp_(dense([tensor])[0], own.to(tensor.device))
