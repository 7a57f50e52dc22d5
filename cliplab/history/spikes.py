"""Spikes of a series: values far from those before them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.checks import check_count, check_positive, described

AT_ONCE = 4096  # windows
NO_SPREAD = 1e-10  # of the mean: rounding makes as much


def spike_score(values: Tensor, window: int, sigmas: float) -> float:
    """Percent of the values ``[n]`` that are spikes; NaN of none."""
    size, far = check_count("window", window), check_positive("sigmas", sigmas)
    if not len(values):
        return float("nan")
    finite = values.isfinite()
    before = finite.long().cumsum(0) - finite.long()  # how many finite values come before each
    known = values[finite].double()
    spikes = ~finite & (before >= size)
    if len(known) > size:
        after = spikes[finite]
        after[size:] = _are_far(known, size, far)
        spikes[finite] = after
    return 100 * float(spikes.double().mean())


def as_series(values: Sequence[float] | Tensor) -> Tensor:
    """Numbers as doubles ``[n]`` on the CPU; ``ValueError`` for what is no series of numbers."""
    unreal = isinstance(values, Tensor) and values.is_complex()
    try:
        series = torch.as_tensor(
            [] if unreal else values, dtype=torch.float64, device="cpu"
        ).detach()
    except (TypeError, ValueError, RuntimeError):
        series = torch.empty(0, 0)
    if unreal or series.ndim != 1:
        raise ValueError(f"values must be numbers on one axis, got {described(values)}")
    return series


def _are_far(values: Tensor, size: int, far: float) -> Tensor:
    """Of every value that so many precede, whether it is as far from their mean: ``[n - size]``.

    Every window is summed on its own: in running sums a spike would outlast its window as rounding.
    """
    windows, found = values[:-1].unfold(0, size, 1), []
    for begin in range(0, len(windows), AT_ONCE):
        some = slice(begin, begin + AT_ONCE)
        spread, mean = torch.std_mean(windows[some], dim=1, correction=0)
        distance = (values[size:][some] - mean).abs()
        found.append((distance >= far * spread) & (spread > NO_SPREAD * mean.abs()))
    return torch.cat(found)
