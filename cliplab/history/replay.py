"""What a policy would have done with recorded norms."""

from __future__ import annotations

import math
from typing import TypeVar

from cliplab.history.ring import Ring
from cliplab.thresholds import Context, Known, Threshold, as_policy, left_out, respond

SomeRing = TypeVar("SomeRing", bound=Ring)


def replay(history: SomeRing, policy: float | Threshold) -> SomeRing:
    """Show a copy of ``policy`` the recorded sizes, step by step."""
    policy = as_policy(policy)
    columns, lrs = history.columns, history.lr.tolist()
    recorded = zip(columns.size.cpu(), columns.limit.cpu(), lrs, strict=True)
    policy.init(columns.size.shape[-1])
    again = history.empty()
    for number, (sizes, before, lr) in enumerate(recorded, history.first_step):
        finite, had_gradient = sizes.isfinite(), ~before.isnan()
        known = None if math.isnan(lr) else lr
        total = sizes.where(finite, 0.0).norm()
        context = Context(finite & had_gradient, number, known, measured=Known(total_norm=total))
        limits = policy(sizes, context).to(sizes)
        step = left_out(respond(sizes, limits, finite, nonfinite="leave"), ~finite.all())
        again.append(step, known)
    return again
