"""One parameter's share of a policy: its rows of the state, lent for an answer and put back."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cliplab.thresholds import (
    Context,
    Known,
    Limits,
    Measured,
    Scheduled,
    Switch,
    Threshold,
    all_of,
)


class PolicyShare:
    """What a policy says of some of its parts, at a cost that does not grow with all of them.

    The state stays the policy's own. ``rows`` are the parts; ``ValueError`` for a policy that asks
    for the norm of all.
    """

    def __init__(self, policy: Threshold, rows: slice) -> None:
        self.band = policy.band
        self._rows, self._own = rows, _narrowed(policy, rows)
        self._pairs = list(zip(all_of(policy), all_of(self._own), strict=True))
        if not policy.stateless:
            _check(policy, self._own, rows.stop - rows.start)

    def __call__(self, sizes: Tensor, context: Context) -> Limits:
        """Return limits for the sizes of these parts, and learn from the active ones."""
        lent = []
        for whole, own in self._pairs:
            own.state = {name: column[self._rows] for name, column in whole.state.items()}
            lent.append((own, dict(own.state)))
        limits = self._own(sizes, replace(context, measured=Alone(context.measured)))
        limits = limits.clone()  # it may be a piece of the state that now changes
        for own, views in lent:
            for name, view in views.items():
                if own.state[name] is not view:
                    view.copy_(own.state[name])
        return limits


class Alone:
    """What can be known of one parameter while the others' gradients are yet to come."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    @property
    def total_norm(self) -> Tensor:
        """Not known: ``TotalUnknownError``."""
        raise TotalUnknownError("the total norm is not known inside the backward pass")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._measured, name)


class TotalUnknownError(ValueError):
    """A policy asked for the norm of all gradients inside the backward pass."""


def _narrowed(policy: Threshold, rows: slice) -> Threshold:
    """A copy of a policy for some of the parts, without any state."""
    memo: dict[int, Any] = {id(each.state): {} for each in all_of(policy)}
    memo |= {id(each.fn): each.fn for each in all_of(policy) if isinstance(each, Scheduled)}
    own = copy.deepcopy(policy, memo)
    for each in all_of(own):
        if isinstance(each, Switch):
            each.cases = [(mask[rows], inner) for mask, inner in each.cases]
    return own


def _check(policy: Threshold, own: Threshold, n_parts: int) -> None:
    """``ValueError`` for a policy that asks for the total norm in its first step."""
    probe = copy.deepcopy(own)
    probe.init(n_parts)
    ones = torch.ones(n_parts, dtype=torch.float32, device="cpu")
    known = Known(weight_norms=ones, numels=ones.long())
    context = Context(ones.bool(), loss=ones[0], measured=Alone(known))
    try:
        probe(ones, context)
    except TotalUnknownError:
        raise ValueError(
            f"{policy!r} asks for the norm of the whole gradient, which is not known inside the "
            "backward pass: clip after it, or choose a policy that asks for none (EMA(warmup=0))"
        ) from None
