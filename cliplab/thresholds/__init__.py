"""How large may it be, and what follows?

From past sizes: averages, percentile, robust; raising small ones, too: raising. From the past of
every entry: entries. Steered by hits: steered. From the weights or the number of entries: shape.
From the loss or the optimizer's moments: ratios. Given: fixed. Policies of policies: wrappers.
min(1, c / n): response.

May use: checks, norms.
Makes numbers: yes.
"""

from cliplab.thresholds.averages import EMA, Deviations, MovingAverage, Queue, ZScore
from cliplab.thresholds.base import Context, Known, Measured, Threshold, learnt_share
from cliplab.thresholds.entries import EntryDeviations
from cliplab.thresholds.fixed import Fixed, RateScaled, Scheduled, as_policy
from cliplab.thresholds.percentile import Percentile
from cliplab.thresholds.raising import AGGC, AdaNorm, GradientStabilizer
from cliplab.thresholds.ratios import LossRatio, Surprise
from cliplab.thresholds.response import (
    AnyStep,
    Band,
    Limits,
    Mode,
    NonFinite,
    Step,
    as_column,
    clip_factor,
    left_out,
    respond,
)
from cliplab.thresholds.robust import RobustSpike, SpikeSkip
from cliplab.thresholds.shape import RMS, TrustRatio, WeightRatio
from cliplab.thresholds.steered import Decay, TargetRate
from cliplab.thresholds.wrappers import AfterWarmup, Bounded, Switch, all_of

__all__ = [
    "AGGC",
    "EMA",
    "RMS",
    "AdaNorm",
    "AfterWarmup",
    "AnyStep",
    "Band",
    "Bounded",
    "Context",
    "Decay",
    "Deviations",
    "EntryDeviations",
    "Fixed",
    "GradientStabilizer",
    "Known",
    "Limits",
    "LossRatio",
    "Measured",
    "Mode",
    "MovingAverage",
    "NonFinite",
    "Percentile",
    "Queue",
    "RateScaled",
    "RobustSpike",
    "Scheduled",
    "SpikeSkip",
    "Step",
    "Surprise",
    "Switch",
    "TargetRate",
    "Threshold",
    "TrustRatio",
    "WeightRatio",
    "ZScore",
    "all_of",
    "as_column",
    "as_policy",
    "clip_factor",
    "learnt_share",
    "left_out",
    "respond",
]
