"""What a size over its limit is answered with."""

from __future__ import annotations

import torch
from torch import Tensor


def _factor(sizes: Tensor, limits: Tensor) -> Tensor:
    return torch.where((sizes > limits) & sizes.isfinite(), limits / sizes, 1.0)
