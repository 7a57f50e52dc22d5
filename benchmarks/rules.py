"""The rules that the streams are clipped by, and what the two files of streams share.

``arms``: every rule with its mode. ``context_of``, ``let_through``: asking a policy, and what is
left of a size. ``table``: a Markdown table.
"""

import math
from dataclasses import replace

import torch

from cliplab import (
    EMA,
    Bounded,
    Context,
    Decay,
    Fixed,
    MovingAverage,
    Percentile,
    Queue,
    RobustSpike,
    SpikeSkip,
    TargetRate,
    ZScore,
)
from cliplab.thresholds import Known


class GlobalEMA(EMA):
    """AdaGC on the gradient as a whole: its size is the total norm."""

    def step(self, sizes, state, context):
        return super().step(sizes, state, replace(context, measured=Known(total_norm=sizes)))


def arms(scale=1.0):
    """Name to (policy, mode); ``scale`` is the size that absolute rules are tuned to."""
    return {
        "none": (Fixed(math.inf), "rescale"),
        "norm": (Fixed(scale), "rescale"),
        "autoclip": (Percentile(10.0), "rescale"),
        "zclip": (Bounded(ZScore(), high=scale), "rescale"),
        "zclip, no cap": (ZScore(), "rescale"),
        "adagc": (GlobalEMA(initial=scale), "rescale"),
        "edm_queue": (Queue(initial=3000 * scale), "rescale"),
        "moving_average": (MovingAverage(), "rescale"),
        "decay": (Decay(scale, floor=1e-3 * scale), "rescale"),
        "target_rate": (TargetRate(initial=scale), "rescale"),
        "spike_skip": (SpikeSkip(), "skip"),
        "robust": (RobustSpike(), "rescale"),
    }


def context_of(sizes, step):
    return Context(active=torch.ones(len(sizes), dtype=torch.bool), step=step)


def let_through(sizes, limits, mode):
    """What remains of each size; the Clipper's own rule."""
    return torch.where(sizes > limits, 0.0 if mode == "skip" else limits, sizes)


def table(rows, header):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
