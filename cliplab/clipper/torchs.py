"""torch's way: an eps below the fraction, sizes and factors by the operations of its functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cliplab.norms import torch_norm
from cliplab.parts import Gradients, Partition, TensorParts
from cliplab.thresholds import AnyStep, Mode, NonFinite, Step, respond

Respond = Callable[..., AnyStep]


class TorchsTotal(TensorParts):
    """One part, measured as ``torch.nn.utils.get_total_norm`` does."""

    def sizes(self, tensors: Gradients, norm_type: float) -> Tensor:
        """Sizes ``[1]`` of tensors that are not sharded."""
        present = [t for t in tensors if t is not None]
        if not present:
            return super().sizes(tensors, norm_type)
        return torch_norm(present, norm_type).view(1).to(self.device)


def measured_by_torch(partition: Partition) -> Partition:
    """The same partition, its size taken by torch's operations if it is of one part."""
    if type(partition) is TensorParts and partition.n_parts == 1:  # not over other ranks
        total = TorchsTotal(partition.params, partition.runs)
        total.names = partition.names
        return total
    return partition


def with_eps(eps: float) -> Respond:
    """``respond`` with an eps; it can be pickled, as an engine is."""
    return functools.partial(_respond, eps)


def _respond(
    eps: float,
    sizes: Tensor,
    limits: Tensor,
    finite: Tensor | None,
    mode: Mode | Literal["clamp"],
    nonfinite: NonFinite | Literal["leave"],
) -> Step[Tensor]:
    """``respond`` to ``n + eps``, the factor of "rescale" as torch computes it, to the bit.

    That is ``min(1, (1 / (n + eps)) * c)``, also for a size below the limit: it may round to less
    than 1 there.
    """
    larger = sizes + eps
    step = respond(larger, limits, finite, mode, nonfinite)
    factor = step.factor
    if mode == "rescale":
        left = ~limits.isfinite() | step.skipped.bool()
        if finite is not None and nonfinite == "zero":
            left = left | ~finite
        factor = torch.where(left, factor, (larger.reciprocal() * limits).clamp(max=1.0))
    after = torch.where(step.after == 0, 0.0, sizes * factor)  # what is cleared may have been inf
    return step._replace(size=sizes, after=after, factor=factor)
