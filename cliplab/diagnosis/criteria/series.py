"""What is asked of a series, whatever it is of: does it rise, and what stands out of it?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_STEPS = 50  # a share of steps is then known to about 0.07
MIN_SPIKES = 100  # two windows of the running median
MIN_TREND = 200  # 20 blocks of 9: the median of a block moves by a third of its spread
START = 0.1  # share of the steps in which norms may still be those of the initialisation
BLOCKS = 20  # points of the trend
WINDOW = 51  # steps of the running median that a spike stands out from
SIGMAS = 5.0  # of the distance to the running median, robust (1.4826 x median of those above 0)


def known_logs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Logs of what is finite and above 0 of values ``[steps]``, and where it stands."""
    known = values.isfinite() & (values > 0)
    return values[known].log(), known.nonzero()[:, 0]


def blocks_of(values: Tensor) -> Tensor:
    """Values in order as ``BLOCKS`` blocks ``[BLOCKS, length]``, the first few left out."""
    length = len(values) // BLOCKS
    return values[len(values) - BLOCKS * length :].reshape(BLOCKS, length)


def trend(points: Tensor) -> tuple[float, float]:
    """Kendall's tau of points in order, and the rise from the first to the last (Theil-Sen)."""
    count = len(points)
    i, j = torch.triu_indices(count, count, offset=1, device="cpu")
    differences = points[j] - points[i]
    slope = float((differences / (j - i)).median())
    return float(differences.sign().mean()), slope * (count - 1)


def line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope of the straight line through points, and its share of the variance of ``y``."""
    x, y = x - x.mean(), y - y.mean()
    slope = float((x * y).sum() / x.square().sum())
    spread = float(y.square().sum())
    return slope, 1 - float((y - slope * x).square().sum()) / spread if spread else 0.0


def standing_out(values: Tensor, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """How far values are above their running median, and which stand out of it by ``least``, too.

    None stands out of the first steps, which may still be those of the initialisation.
    """
    half = WINDOW // 2
    padded = torch.cat([values[:half].flip(0), values, values[-half:].flip(0)])
    above = values - padded.unfold(0, WINDOW, 1).median(dim=1).values
    sigma = 1.4826 * float(above[above > 0].median())
    spikes = above > max(SIGMAS * sigma, least)
    spikes[: int(START * len(values))] = False
    return above, spikes


def lower_share(ends: Tensor, begins: Tensor) -> float:
    """Share of the pairs of an end and a begin in which the end is lower, a tie counting half."""
    differences = begins[:, None] - ends
    return float(((differences > 0).double() + (differences == 0).double() / 2).mean())


def range_of(values: Tensor) -> float:
    """From the 0.1 to the 0.9 quantile: what a few wild values do not move."""
    if not len(values):
        return math.nan
    ordered, edge = values.sort().values, len(values) // 10
    return float(ordered[-1 - edge] - ordered[edge])
