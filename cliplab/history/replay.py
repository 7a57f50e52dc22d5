"""What a policy would have done with recorded norms."""

from __future__ import annotations

import math
from functools import partial

import torch

from cliplab.history.history import History
from cliplab.thresholds import Context, Threshold, as_policy
from cliplab.thresholds.response import _factor


def replay(history: History, policy: float | Threshold) -> History:
    """Show a copy of ``policy`` the recorded sizes, step by step."""
    policy = as_policy(policy)
    rows, lrs = history.rows.cpu(), history.lr.tolist()
    policy.init(rows.shape[-1])
    again = History(history.labels, scalar=history.scalar, max_bytes=history._max_bytes)
    again.first_step = history.first_step
    for step, (row, lr) in enumerate(zip(rows, lrs, strict=True), history.first_step):
        sizes, had_no_gradient = row[0], row[2].isnan()
        finite = sizes.isfinite()
        known = None if math.isnan(lr) else lr
        total = sizes.where(finite, 0.0).norm()
        context = Context(finite & ~had_no_gradient, step, known, None, partial(torch.clone, total))
        limits = policy(sizes, context).to(sizes)
        factor, over = _factor(sizes, limits), sizes > limits
        skipped = (~finite).any().expand_as(over)
        again.append(torch.stack([sizes, sizes * factor, limits, factor, over, skipped]), known)
    return again
