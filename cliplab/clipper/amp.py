"""What a ``GradScaler`` tells the optimizer of a step: both of its protocols."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import OptState


def scale_and_flag(
    optimizer: torch.optim.Optimizer, kwargs: dict[str, Any]
) -> tuple[Tensor | None, Tensor | None]:
    """What the gradients are multiplied by, and a flag that is not 0 where some are not finite.

    None for what nobody told: then the gradients are in true units, or finite. An optimizer that
    copes with scaled gradients finds both in its attributes ``grad_scale`` and ``found_inf``, or,
    if its ``step`` takes ``grad_scaler``, gets the scaler and asks it for both itself.
    """
    scaler = kwargs.get("grad_scaler")
    if isinstance(scaler, torch.amp.GradScaler) and scaler.is_enabled():
        told = scaler._per_optimizer_states[id(optimizer)]
        if told["stage"] is OptState.READY:
            found, scale = scaler._check_inf_per_device(optimizer), scaler._get_scale_async()
        else:
            found, scale = told["found_inf_per_device"], None
        flags = [flag.to(next(iter(found)), non_blocking=True) for flag in found.values()]
        return scale, torch.stack(flags).sum() if flags else None
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None, None
    return getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
