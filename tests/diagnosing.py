"""Made-up histories, and what is found in them."""

import math
from collections.abc import Sequence

import torch

from cliplab.diagnosis import Finding, diagnose
from cliplab.history import History


def record(norms, limit=1.0, *, low=0.0, labels=(), lr=None, skipped=(), updates=None):
    """A history of norms ``[steps]`` or ``[steps, n_parts]`` that were brought into a band.

    ``lr`` is one or one a step; ``updates`` are norms of updates.
    """
    history = History(labels, scalar=not labels)
    for step, norm in enumerate(norms):
        sizes = torch.as_tensor(norm, dtype=torch.float32).reshape(-1)
        over, under = sizes > limit, (sizes > 0) & (sizes < low)
        limits = torch.full_like(sizes, limit).where(~under, low)
        factor = torch.where(over | under, limits / sizes, 1.0)
        skip = torch.full_like(sizes, step in skipped)
        row = [sizes, sizes * factor, limits, factor, over, skip]
        history.append(torch.stack(row), lr[step] if isinstance(lr, Sequence) else lr)
        if updates is not None:
            history.put_update(float(updates[step]))
    return history


def found(history, lr=None, loss=None) -> dict[str, Finding]:
    """The findings by name."""
    return {finding.name: finding for finding in diagnose(history, lr, loss=loss)}


def noisy(level, steps: int, noise: float = 0.3, seed: int = 0) -> torch.Tensor:
    """``[steps]`` around a level, one or one a step: times exp of a normal number."""
    draw = torch.Generator().manual_seed(seed)
    return torch.as_tensor(level) * torch.randn(steps, generator=draw).mul(noise).exp()


def cosine(steps: int, highest: float = 0.1) -> list[float]:
    """A learning rate that decays to nearly 0 as a cosine does."""
    return [highest * (1.0001 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
