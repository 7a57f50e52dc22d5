"""The fast step: one finite part on a CPU, answered in numbers. Small models feel every call.

All that is special about this case is known here. The general way gives the same bits, except
that the size after clipping, ``size * factor``, is rounded once here and twice there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from cliplab.checks import may_look
from cliplab.parts import Partition, Scope
from cliplab.thresholds import AnyStep, Limits, Mode, NonFinite, Step, respond

WORTH = 1 << 20  # entries from which handing the factor over pays on a CPU


def serves(partition: Partition, scope: Scope, mode: Mode, dtype: torch.dtype) -> bool:
    """Whether all finite steps of an engine can be fast: one part of whole fp32 tensors."""
    whole = partition.n_parts == 1 and scope in ("global", "group", "tensor")
    return whole and mode == "rescale" and dtype is torch.float32 and may_look(partition.params[0])


def respond_to_one(
    sizes: Tensor,
    limits: Limits,
    finite: Tensor | None,
    mode: Mode | Literal["clamp"],
    nonfinite: NonFinite | Literal["leave"],
) -> AnyStep:
    """``respond`` where ``serves`` holds: in numbers, unless something may not be finite."""
    if finite is not None:
        return respond(sizes, limits, finite, mode, nonfinite)
    size, limit = float(sizes), float(limits)  # type: ignore[arg-type]  # no band comes here
    if not size > limit:
        return Step(size, size, limit, 1.0, 0.0, 0.0)
    factor = limit / size
    return Step(size, size * factor, limit, factor, 1.0, 0.0)


def handing_over_pays(params: Sequence[Tensor]) -> bool:
    """Whether a fused optimizer should be handed the factor of one part.

    Its kernels write back what they unscale: on a CPU that costs small models more than it saves;
    on an accelerator it saves launches.
    """
    return not may_look(params[0]) or sum(p.numel() for p in params) >= WORTH
