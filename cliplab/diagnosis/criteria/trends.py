"""Do the norms grow, and is it the falling learning rate that makes them?

With weight decay, weights that a normalisation layer follows settle where decay and steps balance,
and there the gradient is ``sqrt(2 decay / lr)`` times the weights: as the rate falls the norm rises
as ``lr^-1/2`` (Defazio 2025, arXiv 2506.02285). It rises less where the balance lags behind, where
the loss still falls, and where other weights have gradients, too: as ``lr^-0.2`` in small networks
under AdamW. That it is the rate and not time is told by the steps before it falls, in which the
norm grows less; where there are none (a rate that decays from the first step on) nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from cliplab.diagnosis.criteria.series import (
    MIN_TREND,
    START,
    blocks_of,
    known_logs,
    line,
    trend,
)
from cliplab.diagnosis.findings import Finding
from cliplab.diagnosis.record import Record

RISE = 3.0  # by which the norm must have grown from begin to end, and
TAU = 0.6  # Kendall's tau of that: nearly every later block is above an earlier one
HALVED = 0.5  # of the highest rate: below it the decay has begun
FEWEST = MIN_TREND // 2  # steps, before it and in it: medians of five
LOWEST = 0.02  # of it: lower, the balance takes longer to reach than the run lasts
DECAYED = 4.0  # the rate must fall by as much between these two: the norm then doubles
SLOPES = (-0.75, -0.1)  # of log norm over log rate
FIT = 0.7  # of the variance of the log norm is the line's
BEFORE = 0.6  # of its growth in a step: the norm grew by no more while the rate was high
IDLE = 0.02  # of the steps were clipped before the decay: the threshold was idle, and
AWAKE = 0.1  # of the last steps: it acts


class Growth(NamedTuple):
    """A norm that grew: how many fold, how steadily, and in which steps."""

    rise: float
    tau: float
    begin: int
    end: int


def growth(record: Record) -> Growth | None:
    """How the norm grew after the start; None if it did not."""
    logs, at = known_logs(record.total)
    if len(logs) < MIN_TREND:
        return None
    begin = int(START * len(logs))
    tau, rise = trend(blocks_of(logs[begin:]).median(dim=1).values)
    if tau < TAU or rise < math.log(RISE):
        return None
    steps = record.numbers[at]
    return Growth(math.exp(rise), tau, int(steps[begin]), int(steps[-1]))


def _growth_a_step(record: Record, used: Tensor) -> float:
    """Of the log norm over the steps of a mask ``[steps]``."""
    steps, logs = used.nonzero()[:, 0].double(), record.total[used].log()
    slope, _ = line(*(blocks_of(values).median(dim=1).values for values in (steps, logs)))
    return slope


class Follows(NamedTuple):
    """A norm that rises as a power of the falling rate."""

    slope: float
    fit: float
    begin: int  # where the first step stands after the rate has halved for good
    fall: float  # of the rate, over the steps of the fit
    rise: float  # of the norm, over them


def follows_rate(record: Record) -> Follows | None:
    """How the norm follows the rate while it decays at the end; None if it does not."""
    known = record.lrs.isfinite() & (record.lrs > 0)
    if not bool(known.any()):
        return None
    highest = float(record.lrs[known].max())
    high = (record.lrs > HALVED * highest).nonzero()[:, 0]
    begin = int(high[-1]) + 1
    used = known & (record.lrs >= LOWEST * highest) & record.fine & (record.total > 0)
    used[:begin] = False
    if int(used.sum()) < FEWEST:
        return None
    rates, norms = (
        blocks_of(values[used].log()).median(dim=1).values for values in (record.lrs, record.total)
    )
    fall = math.exp(float(rates.max() - rates.min()))
    if fall < DECAYED:
        return None
    slope, fit = line(rates, norms)
    if not SLOPES[0] <= slope <= SLOPES[1] or fit < FIT:
        return None
    early = record.fine & (record.total > 0)
    early[: int(START * len(early))] = early[begin:] = False
    if int(early.sum()) < FEWEST or _growth_a_step(record, early) > BEFORE * _growth_a_step(
        record, used
    ):
        return None
    return Follows(slope, fit, begin, fall, fall**-slope)


def find_trend(record: Record) -> Iterator[Finding]:
    """The norm grows, and not because the rate falls."""
    grown = growth(record)
    if grown is None or follows_rate(record) is not None:
        return
    yield Finding(
        "norm trending up",
        "warning",
        f"the norm grew {grown.rise:.3g}-fold from step {grown.begin} to step {grown.end} "
        f"(Theil-Sen on block medians, Kendall's tau {grown.tau:.2f})",
        "Often the weights grow or the learning rate is too high: lower it or add weight "
        "decay or a warm-up. A fixed threshold will clip more and more; one relative to past "
        "norms follows the growth and does not stop it.",
        {"rise": grown.rise, "tau": grown.tau},
    )


def find_rate_driven(record: Record) -> Iterator[Finding]:
    """The norm grows because the rate falls, and may wake a threshold that was idle."""
    found = follows_rate(record)
    if found is None:
        return
    clipped = record.shortened.any(dim=1).double()
    begin = int(record.numbers[found.begin])
    before = clipped[int(START * found.begin) : found.begin]
    share = float(before.mean()) if len(before) else 0.0
    last = float(clipped[-max(int(START * len(clipped)), 1) :].mean())
    wakes = share <= IDLE and last >= AWAKE
    yield Finding(
        "norm rises as the rate falls",
        "warning" if wakes else "info",
        f"from step {begin} on the norm grew {found.rise:.3g}-fold while the learning rate "
        f"fell {found.fall:.3g}-fold, as its power {found.slope:.2f}; clipped were {share:.0%} of "
        f"the steps before and {last:.0%} of the last tenth",
        "Weight decay on normalised layers does this, up to lr^-1/2: no instability, but a fixed "
        "threshold begins to shorten steps that the schedule shortens already. Correct the "
        "weight decay of these layers (AdamC, Defazio 2025: decay x lr / highest lr), or let the "
        'threshold rise as lr^-1/2, as create("katago", model) does.',
        {
            "slope": found.slope,
            "fit": found.fit,
            "rise": found.rise,
            "fall": found.fall,
            "begin": begin,
            "clipped_before": share,
            "clipped_last": last,
        },
    )
