"""What a policy would have done with recorded norms."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from cliplab.history.ring import SomeRing
from cliplab.thresholds import (
    Context,
    Known,
    Mode,
    SpikeSkip,
    Threshold,
    as_policy,
    left_out,
    respond,
)


@runtime_checkable
class Clips(Protocol):
    """What of a ``Clipper`` is replayed."""

    policy: Threshold
    mode: Mode


def replay(history: SomeRing, given: float | Threshold | Clips) -> SomeRing:
    """Show a copy of a policy the recorded sizes, step by step."""
    policy, mode = _as_policy(given)
    columns, lrs = history.columns, history.lr.tolist()
    recorded = zip(columns.size.cpu(), columns.limit.cpu(), lrs, strict=True)
    policy.init(columns.size.shape[-1])
    again = history.empty()
    for number, (sizes, before, lr) in enumerate(recorded, history.first_step):
        finite, had_gradient = sizes.isfinite(), ~before.isnan()
        known = None if math.isnan(lr) else lr
        total = sizes.where(finite, 0.0).double().norm().to(sizes)
        context = Context(finite & had_gradient, number, known, measured=Known(total_norm=total))
        limits = policy(sizes, context).to(sizes)
        step = left_out(respond(sizes, limits, finite, mode, "leave"), ~finite.all())
        again.append(step, known)
    return again


def _as_policy(given: float | Threshold | Clips) -> tuple[Threshold, Mode]:
    """A copy of the policy, and what follows where a size is above its limit."""
    if isinstance(given, Clips):
        return as_policy(given.policy), given.mode
    policy = as_policy(given)
    return policy, "skip" if isinstance(policy, SpikeSkip) else "rescale"
