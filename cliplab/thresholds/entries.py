"""Limits of single entries, from each entry's own past."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.checks import check_count
from cliplab.thresholds.base import (
    Context,
    State,
    Threshold,
    check_decay,
    check_single,
    learnt_share,
)


class EntryDeviations(Threshold):
    """Clamp every entry at a multiple of its own running root mean square (AdamWClip).

    ``|g_j| <= max(k * sqrt(v_j), floor)`` where ``v_j <- beta * v_j + (1 - beta) * g_j^2`` of the
    clamped entries, over ``1 - beta^t``. For scope "element" alone. Recorded are the size
    ``max_j |g_j| / max(sqrt(v_j), floor / k)``, the limit k, and as factor the L2 norm after over
    the one before. A tensor's first ``warmup`` gradients are learnt unclamped. Without a warm-up,
    as published, v starts at 0: the first gradient is clamped to ``floor``, and of a constant
    stream of ones the default lets step 794 be the first to pass. What is not finite is not learnt.
    Memory: one fp32 copy of the gradients. ``ValueError`` for sparse, complex and sharded ones.
    Source: PyPI ``adamwclip`` 0.1.4.
    """

    def __init__(
        self, k: float = 3.0, beta: float = 0.999, floor: float = 1e-10, warmup: int = 0
    ) -> None:
        super().__init__()
        self.k, self.beta = check_single("k", k), check_decay("beta", beta)
        self.floor = check_single("floor", floor)
        self.warmup = check_count("warmup", warmup, zero=True)

    def hold(self, params: Sequence[Tensor]) -> None:
        """Begin with nothing seen of the entries of these tensors."""
        for i, p in enumerate(params):
            self.state[f"rms {i}"] = torch.zeros_like(p.detach(), dtype=torch.float32)
            self.state[f"seen {i}"] = torch.zeros((), dtype=torch.long, device=p.device)

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer k; what is learnt is learnt from the clamped entries."""
        if not state:
            raise ValueError("EntryDeviations clamps entries: use it in a Clipper of their scope")
        return torch.full_like(sizes, self.k), {}

    def relative(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Magnitudes of entries, each over its own root mean square."""
        for gradient in gradients:
            if gradient is not None and gradient.layout is not torch.strided:
                raise ValueError("EntryDeviations takes dense gradients, got a sparse one")
        return [None if g is None else g.abs() / self._unit(i) for i, g in enumerate(gradients)]

    def clamp_(
        self,
        gradients: Sequence[Tensor | None],
        limit: Tensor,
        scale: Tensor | None,
        learns: Tensor,
    ) -> None:
        """Clamp to ``limit`` root mean squares; learn what, over ``scale``, is left of it."""
        for i, gradient in enumerate(gradients):
            if gradient is None:
                continue
            bound = self._unit(i) * limit.to(gradient.device)
            gradient.clamp_(-bound, bound)
            rms, learnt = self.state[f"rms {i}"], learns.to(gradient.device)
            entries = gradient.float()
            entries = entries if scale is None else entries / scale.to(entries)
            new = torch.hypot(math.sqrt(self.beta) * rms, math.sqrt(1 - self.beta) * entries)
            rms.copy_(torch.where(learnt & new.isfinite(), new, rms))
            self.state[f"seen {i}"] += learnt

    def _unit(self, i: int) -> Tensor:
        """The root mean square of every entry of a tensor; ``inf`` in the warm-up."""
        rms, seen = self.state[f"rms {i}"], self.state[f"seen {i}"]
        unit = (rms / learnt_share(self.beta, seen).sqrt()).clamp(min=self.floor / self.k)
        return torch.where(seen < self.warmup, math.inf, unit)
