"""Limits that divide a size: by how far the loss is above its mean, or the gradient above what the
optimizer expects.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliplab.checks import check_count, check_positive
from cliplab.thresholds.base import Context, State, Threshold, check_single


class LossRatio(Threshold):
    """Shrink steps of a high loss: ``limit = size / r^power`` where ``r = loss / mean`` is above 1.

    ``mean <- mean + 2 / (span + 1) * (loss - mean)`` starts at the first loss; a loss with r above
    ``spike`` is not learnt. No limit (``inf``) where r is at most 1 or the mean not above 0; one of
    0 at a loss that is not finite, which is not learnt. A scalar loss has to be given at every
    step, by ``clip(loss)`` or ``observe(loss)``: else a ``ValueError``. Source: metaseq's
    ``skip_spike``, which so scales the learning rate: that is ``target="update"``.

    Args:
        power: exponent of the ratio, > 0.
        span: length of the running mean of the losses (steps).
        spike: ratio above which a loss is not learnt.
    """

    def __init__(self, power: float = 4.0, span: int = 9, spike: float = math.inf) -> None:
        super().__init__()
        self.power = check_single("power", power)
        self.span = check_count("span", span)
        self.spike = check_positive("spike", spike)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with no loss seen."""
        return {
            "mean": torch.zeros(n_parts, dtype=torch.float32, device=device),
            "count": torch.zeros(n_parts, dtype=torch.long, device=device),
        }

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Compare the loss with its mean, then learn it."""
        loss = context.scalar_loss(sizes)
        mean = torch.where(state["count"] > 0, state["mean"], loss)
        ratio, fine = torch.where(mean > 0, loss / mean, 1.0), loss.isfinite()
        limit = torch.where(ratio > 1, sizes / ratio**self.power, math.inf).where(fine, 0.0)
        learns = fine & (ratio <= self.spike)
        after = torch.where(learns, torch.lerp(mean, loss, 2 / (self.span + 1)), state["mean"])
        return limit, {"mean": after, "count": state["count"] + learns}


class Surprise(Threshold):
    """Shrink a surprising update: ``limit = size / max(1, RMS(g / sqrt(v)))`` (StableAdamW).

    v is the optimizer's running mean of squares of the gradient g: for ``target="update"`` alone,
    at an optimizer of the Adam family. No limit (``inf``) where the ratio is at most 1. No state.
    Decoupled weight decay is no part of an update; published, it is shrunk alike. Source: Wortsman
    et al. 2023.
    """

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Ask for the ratio and divide by it."""
        ratio = context.surprise.to(sizes)
        return torch.where(ratio > 1, sizes / ratio, math.inf), {}
