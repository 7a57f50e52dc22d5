"""Policies from robust statistics of the last sizes: one that clips spikes, one that skips them.

Both keep raw sizes and use only their order: no spike enters a limit by its size, and a run of them
cannot carry it away while it fills at most a quarter of the window. A higher level, however far
off, is in the upper quartile after ``window // 4 + 1`` sizes and in the median after
``window // 2 + 1``; each policy says which of them it takes to follow.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from cliplab.checks import check_count
from cliplab.thresholds.base import SINGLE, Context, State, Threshold, check_single

_SIGMAS = 1.349  # between the quartiles of a normal distribution


class RobustSpike(Threshold):
    """A robust multiple of the last sizes: ``limit = median * exp(deviations * s)``.

    ``s = (prior * spread + n * ln(q75 / q25) / 1.349) / (prior + n)``: the scale of the log size
    from the quartiles of the last ``n + 1 <= window`` sizes, drawn towards ``spread`` by ``prior``
    further sizes. That is the limit of the first steps and keeps a constant stream from being
    clipped. The current size is not part of its own limit, so a larger spike never gives a smaller
    step. Zeros are not learnt; the very first size meets no limit (``inf``).

    It stops spikes and follows levels: one that stays, however far off, is clipped no more after
    ``window // 4 + 1`` steps if ``deviations * (window - 1) >= 1.35 * (prior + window - 1)``, as by
    default, else after ``window // 2 + 1``. Under a learning rate that is too high norms creep up
    and this limit goes with them, as every relative one does: ``Bounded`` sets an end to that.

    Args:
        deviations: scales above the median, > 0.
        window: sizes that count, the last ones (steps).
        spread: scale of the log size where nothing is known yet.
        prior: sizes for which that counts.

    >>> policy = RobustSpike()
    >>> policy.init(1)
    >>> sizes = torch.tensor([1.0, 1.0, 100.0, 1.0])
    >>> [round(float(policy(n.view(1), Context(torch.tensor([True])))), 1) for n in sizes]
    [inf, 2.9, 2.7, 2.5]
    """

    def __init__(
        self,
        deviations: float = 3.0,
        window: int = 64,
        spread: float = 0.35,
        prior: float = 16.0,
    ) -> None:
        super().__init__()
        self.deviations = check_single("deviations", deviations)
        self.window = check_count("window", window)
        self.spread = check_single("spread", spread)
        self.prior = check_single("prior", prior)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with an empty window."""
        return _window("sizes", n_parts, self.window, device)

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer from the window, then put the size into it."""
        low, middle, high, last = _quartiles("sizes", state)
        n = last.float()
        total = (high / low).log() * n + self.prior * self.spread * _SIGMAS
        limit = middle * (total / (n + self.prior) * (self.deviations / _SIGMAS)).exp()
        limit.masked_fill_(middle == SINGLE.max, math.inf)
        return limit, _put("sizes", state, sizes, sizes > 0)


class SpikeSkip(Threshold):
    """For ``mode="skip"``: a spike of the size, or of the loss, far outside the last ones.

    ``limit = median + sigmas * max((q75 - q25) / 1.349, floor * |median|)`` of the last ``window``
    sizes, and alike of the last losses where a loss is given: one above its limit, NaN or inf makes
    the limit of the sizes 0. No limit (``inf``) before ``warmup`` sizes (losses). Skipped steps are
    learnt, so a level that stays is accepted after at most ``window // 4 + 1`` skipped steps
    (``sigmas`` below 1.35: ``window // 2 + 1``); one whose loss is not finite is not learnt, and
    neither is a size of 0.

    ``loss`` is a scalar; any other shape is a ``ValueError``. Source: the rule of OLMo-core's
    ``SkipStepOptimizer`` (mean and standard deviation), in order statistics.

    Args:
        sigmas: deviations above the median, > 0.
        window: sizes that count, the last ones (steps).
        warmup: sizes before there is a limit (steps).
        floor: smallest deviation, as a share of the median.
    """

    def __init__(
        self, sigmas: float = 6.0, window: int = 128, warmup: int = 64, floor: float = 0.02
    ) -> None:
        super().__init__()
        self.sigmas = check_single("sigmas", sigmas)
        self.window = check_count("window", window)
        self.warmup = check_count("warmup", warmup)
        if self.warmup > self.window:
            raise ValueError(f"warmup must be at most window={self.window}, got {self.warmup}")
        self.floor = check_single("floor", floor)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with empty windows."""
        sizes, losses = (_window(n, n_parts, self.window, device) for n in ("sizes", "losses"))
        return sizes | losses

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer from the windows, then put the size and the loss into them."""
        limit = self._limit("sizes", state)
        if context.loss is None:
            return limit, _put("sizes", state, sizes, sizes > 0)
        loss = context.scalar_loss(sizes)
        finite = loss.isfinite()
        fine = finite & (loss <= self._limit("losses", state))
        after = _put("sizes", state, sizes, finite & (sizes > 0))
        return torch.where(fine, limit, 0.0), after | _put("losses", state, loss, finite)

    def _limit(self, name: str, state: State) -> Tensor:
        low, middle, high, _ = _quartiles(name, state)
        scale = torch.maximum((high - low) * (1 / _SIGMAS), middle.abs() * self.floor)
        warm = state[f"{name}_seen"].squeeze(1) >= self.warmup
        return torch.where(warm, middle + scale * self.sigmas, math.inf)


def _window(name: str, n_parts: int, length: int, device: torch.device) -> State:
    """An empty window: values ``[n_parts, length]``, and how many there were ``[n_parts, 1]``.

    It is filled with what is sorted last.
    """
    return {
        name: torch.full((n_parts, length), SINGLE.max, dtype=torch.float32, device=device),
        f"{name}_seen": torch.zeros(n_parts, 1, dtype=torch.long, device=device),
    }


def _quartiles(name: str, state: State) -> tuple[Tensor, ...]:
    """Lower quartile, median, upper quartile, and the rank of the largest, all ``[n_parts]``.

    Of two middle values the lower one, but at most a quarter of the window is above the upper
    quartile; ``SINGLE.max`` three times for an empty window.
    """
    values, seen = state[name], state[f"{name}_seen"].squeeze(1)
    ranks = _ranks(values.shape[1], values.device)[seen.clamp(max=values.shape[1])]
    low, middle, high, _ = values.sort(dim=1).values.gather(1, ranks).unbind(1)
    return low, middle, high, ranks[:, 3]


@cache
def _ranks(length: int, device: torch.device) -> Tensor:
    """Of 0 to ``length`` values in a window: the ranks of the quartiles, and of the largest."""
    last = (torch.arange(length + 1, device=device).clamp(min=1) - 1).unsqueeze(1)
    ranks = last * torch.arange(1, 5, device=device) // 4
    ranks[:, 2:3].clamp_(min=last - length // 4)
    return ranks


def _put(name: str, state: State, values: Tensor, learns: Tensor) -> State:
    """The window with those of ``values [n_parts]`` that are learnt in place of the oldest."""
    window, seen = state[name], state[f"{name}_seen"]
    index, learns = seen % window.shape[1], learns.unsqueeze(1)
    new = torch.where(learns, values.unsqueeze(1), window.gather(1, index))
    return {name: window.scatter(1, index, new), f"{name}_seen": seen + learns}
