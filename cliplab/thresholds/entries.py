"""Limits of single entries, from each entry's own past."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cliplab.checks import check_count
from cliplab.norms import kinds
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

    Args:
        k: limit over an entry's root mean square, > 0.
        beta: share of v that is kept at a step, in [0, 1).
        floor: smallest limit of an entry (its magnitude).
        warmup: gradients of a tensor that are learnt unclamped (steps).
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
        """Entries, each over its own root mean square."""
        for gradient in gradients:
            if gradient is not None and gradient.layout is not torch.strided:
                raise ValueError("EntryDeviations takes dense gradients, got a sparse one")
        ratios: list[Tensor | None] = [None] * len(gradients)
        for numbers, entries in _alike(gradients):
            each = torch._foreach_div(entries, self._units(numbers))
            for i, ratio in zip(numbers, each, strict=True):
                ratios[i] = ratio
        return ratios

    def clamp_(
        self,
        gradients: Sequence[Tensor | None],
        limit: Tensor,
        scale: Tensor | None,
        learns: Tensor,
    ) -> None:
        """Clamp to ``limit`` root mean squares; learn what, over ``scale``, is left of it."""
        for numbers, entries in _alike(gradients):
            place = entries[0].device
            bounds = self._units(numbers)
            torch._foreach_mul_(bounds, limit.to(place))
            for gradient, bound in zip(entries, bounds, strict=True):
                gradient.clamp_(-bound, bound)
            self._learn(numbers, entries, None if scale is None else scale.to(place), learns)

    def _learn(
        self, numbers: list[int], entries: list[Tensor], scale: Tensor | None, learns: Tensor
    ) -> None:
        held, learns = self._held("rms", numbers), learns.to(entries[0].device)
        most = torch.where(learns, math.inf, 0.0)  # NaN and inf are below neither
        added = [entry.float() for entry in entries]
        seen = added if scale is None else torch._foreach_div(added, scale.float())
        new = torch._foreach_mul(seen, math.sqrt(1 - self.beta))
        kept = torch._foreach_mul(held, math.sqrt(self.beta))
        for rms, old, entry in zip(held, kept, new, strict=True):
            after = torch.hypot(old, entry, out=old)
            torch.where(after < most, after, rms, out=rms)
        torch._foreach_add_(self._held("seen", numbers), [learns.long()] * len(numbers))

    def _units(self, numbers: list[int]) -> list[Tensor]:
        """The root mean square of every entry of tensors; ``inf`` in the warm-up."""
        seen = torch.stack(self._held("seen", numbers))
        learnt = learnt_share(self.beta, seen).sqrt()
        units = torch._foreach_div(self._held("rms", numbers), learnt.unbind())
        torch._foreach_clamp_min_(units, self.floor / self.k)
        if self.warmup:
            warm = torch.where(seen < self.warmup, math.inf, 1.0)
            torch._foreach_mul_(units, warm.unbind())
        return list(units)

    def _held(self, name: str, numbers: list[int]) -> list[Tensor]:
        return [self.state[f"{name} {i}"] for i in numbers]


def _alike(gradients: Sequence[Tensor | None]) -> Iterator[tuple[list[int], list[Tensor]]]:
    """The gradients that there are, with their numbers, by device and dtype."""
    present = [i for i, gradient in enumerate(gradients) if gradient is not None]
    entries = [gradient for gradient in gradients if gradient is not None]
    for bucket in kinds(entries).values():
        yield [present[k] for k in bucket], [entries[k] for k in bucket]
