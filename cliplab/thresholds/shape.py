"""Limits relative to the weights' norms or to the number of entries."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliplab.checks import check_positive
from cliplab.thresholds.base import Context, State, Threshold, check_single
from cliplab.thresholds.fixed import fitting


class WeightRatio(Threshold):
    """A share of the weights' own norm: ``limit = ratio * max(|W|, eps)`` (AGC). No state.

    ``eps`` lets weights that begin at zero move. Source: Brock et al. 2021 (NFNets).

    Args:
        ratio: limit over the weights' norm, > 0.
        eps: smallest norm of weights that counts, >= 0.
    """

    def __init__(self, ratio: float = 0.01, eps: float = 1e-3) -> None:
        super().__init__()
        self.ratio = check_single("ratio", ratio)
        self.eps = check_single("eps", eps, zero=True)

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Measure the weights and answer."""
        return self.ratio * context.weight_norms.to(sizes).clamp(min=self.eps), {}


class TrustRatio(Threshold):
    """A multiple of the weights' own norm, no limit where it is 0: ``limit = ratio * |W|``.

    On an update it is the clipped trust ratio ``min(1, |W| / |u|)``. No state. Source: You et al.
    2020 (LAMB), clipped as in timm's ``trust_clip``.

    Args:
        ratio: limit over the weights' norm, > 0.
    """

    def __init__(self, ratio: float = 1.0) -> None:
        super().__init__()
        self.ratio = check_single("ratio", ratio)

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Measure the weights and answer."""
        weights = context.weight_norms.to(sizes)
        return torch.where(weights > 0, self.ratio * weights, math.inf), {}


class RMS(Threshold):
    """A limit on the root mean square of a part: ``limit = c * sqrt(entries)``, at least c.

    Source: the update clipping of Shazeer & Stern 2018 (Adafactor), on gradients.

    Args:
        value: root mean square c that is allowed, >= 0.
    """

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = check_positive("threshold", value, zero=True)

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Count the entries and answer."""
        return fitting(self.value, sizes) * context.numels.to(sizes).clamp(min=1).sqrt(), {}
