"""How large may it be, and what follows?

From past sizes: averages, percentile, robust. Steered by hits: steered. From the weights or the
number of entries: shape. Given: fixed. Policies of policies: wrappers. min(1, c / n): response.

May use: checks.
Makes numbers: yes.
"""

from cliplab.thresholds.averages import EMA, MovingAverage, Queue, ZScore
from cliplab.thresholds.base import Context, Known, Measured, Threshold
from cliplab.thresholds.fixed import Fixed, Scheduled, as_policy
from cliplab.thresholds.percentile import Percentile
from cliplab.thresholds.response import (
    AnyStep,
    Mode,
    NonFinite,
    Step,
    as_column,
    clip_factor,
    left_out,
    respond,
)
from cliplab.thresholds.robust import RobustSpike, SpikeSkip
from cliplab.thresholds.shape import RMS, WeightRatio
from cliplab.thresholds.steered import Decay, TargetRate
from cliplab.thresholds.wrappers import AfterWarmup, Bounded, Switch

__all__ = [
    "EMA",
    "RMS",
    "AfterWarmup",
    "AnyStep",
    "Bounded",
    "Context",
    "Decay",
    "Fixed",
    "Known",
    "Measured",
    "Mode",
    "MovingAverage",
    "NonFinite",
    "Percentile",
    "Queue",
    "RobustSpike",
    "Scheduled",
    "SpikeSkip",
    "Step",
    "Switch",
    "TargetRate",
    "Threshold",
    "WeightRatio",
    "ZScore",
    "as_column",
    "as_policy",
    "clip_factor",
    "left_out",
    "respond",
]
