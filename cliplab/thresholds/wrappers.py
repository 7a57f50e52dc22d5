"""Policies made of policies: in bounds, after a warm-up, or different ones for different parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import check_count, check_positive, described
from cliplab.thresholds.base import Context, State, Threshold
from cliplab.thresholds.fixed import as_policy, fitting
from cliplab.thresholds.response import Limits, on_both_sides


class Wrapper(Threshold):
    """Base of the policies that are made of policies (``inner``); their states nest by name."""

    @property
    def inner(self) -> dict[str, Threshold]:
        """The policies by name."""
        raise NotImplementedError

    @property
    def stateless(self) -> bool:  # type: ignore[override]
        """Whether all inner policies are."""
        return all(policy.stateless for policy in self.inner.values())

    @property
    def band(self) -> bool:  # type: ignore[override]
        """Whether any inner policy's limits are bands."""
        return any(policy.band for policy in self.inner.values())

    def init(self, n_parts: int, device: torch.device | str = "cpu") -> None:
        """Start every policy afresh."""
        super().init(n_parts, device)
        for policy in self.inner.values():
            policy.init(n_parts, device)

    def state_dict(self) -> dict[str, Any]:
        """Return the own state and those of the inner policies."""
        nested = {name: policy.state_dict() for name, policy in self.inner.items()}
        return super().state_dict() | nested

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if a state is not of this policy and its inner ones."""
        names, kind = [*self.state, *self.inner], type(self).__name__
        if not isinstance(state, Mapping):
            raise ValueError(f"{kind}: expected a state, got {described(state)}")
        if set(state) != set(names):
            raise ValueError(f"{kind}: expected {sorted(names)}, got {described([*state])}")
        super().check_state_dict({name: state[name] for name in self.state})
        for name, policy in self.inner.items():
            policy.check_state_dict(state[name])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over all states, or none."""
        super().load_state_dict(state)
        for name, policy in self.inner.items():
            policy.load_state_dict(state[name])


class Bounded(Wrapper):
    """Keep a policy's limits in bounds: ``limit = min(max(inner, low), high)``.

    Relative policies alone do not stop an explosion; a bound does. The inner policy is not told:
    it sees raw sizes, and what it learns is clipped, if at all, at its own limit, not at the bound
    (as ZClip does with its ``max_grad_norm``). Of a ``Band`` both sides are kept in bounds.

    Args:
        policy: whose limits are kept in bounds; a number is a fixed one.
        low: smallest limit (norm), >= 0.
        high: largest limit (norm).

    >>> policy = Bounded(5.0, high=1.0)
    >>> policy.init(1)
    >>> policy(torch.tensor([3.0]), Context(active=torch.tensor([True])))
    tensor([1.])
    """

    def __init__(self, policy: float | Threshold, low: float = 0.0, high: float = math.inf) -> None:
        super().__init__()
        self.policy = as_policy(policy)
        self.low = check_positive("low", low, zero=True)
        self.high = check_positive("high", high, zero=True)
        if self.low > self.high:
            raise ValueError(f"low must be at most high={high!r}, got {low!r}")

    @property
    def inner(self) -> dict[str, Threshold]:
        """The one policy."""
        return {"policy": self.policy}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Limits, State]:
        """Ask and clamp."""
        low, high = fitting(self.low, sizes), fitting(self.high, sizes)
        clamp = partial(torch.clamp, min=low, max=high)
        return on_both_sides(clamp, self.policy(sizes, context)), {}


class AfterWarmup(Wrapper):
    """``until`` rules a part's first ``steps`` active finite steps; ``policy`` already learns.

    Both are numbers or policies.

    Args:
        policy: what rules afterwards.
        steps: length of the warm-up, of each part (steps).
        until: what rules during the warm-up; ``inf``: nothing is clipped.
    """

    def __init__(
        self,
        policy: float | Threshold,
        steps: int = 100,
        until: float | Threshold = math.inf,
    ) -> None:
        super().__init__()
        self.policy = as_policy(policy)
        self.steps = check_count("steps", steps)
        self.until = as_policy(until)

    @property
    def inner(self) -> dict[str, Threshold]:
        """The policy, and the one before it."""
        return {"policy": self.policy, "until": self.until}

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin to count."""
        return {"count": torch.zeros(n_parts, dtype=torch.long, device=device)}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Limits, State]:
        """Ask both and choose."""
        first, then = self.until(sizes, context), self.policy(sizes, context)
        choose = partial(torch.where, state["count"] < self.steps)
        return on_both_sides(choose, first, then), {"count": state["count"] + 1}


class Switch(Wrapper):
    """Different policies for different parts: ``Switch([(mask, policy), ...])``.

    Every part must be in exactly one mask (a sequence of bools, ``[n_parts]``).

    Args:
        cases: pairs of a mask ``[n_parts]`` and the policy, or number, of the parts in it.

    >>> policy = Switch([([True, False], 1.0), ([False, True], 9.0)])
    >>> policy.init(2)
    >>> policy(torch.tensor([5.0, 5.0]), Context(active=torch.tensor([True, True])))
    tensor([1., 9.])
    """

    def __init__(self, cases: Sequence[tuple[Sequence[bool] | Tensor, float | Threshold]]) -> None:
        super().__init__()
        if not isinstance(cases, Sequence) or not cases or any(not _is_pair(c) for c in cases):
            raise ValueError(
                f"Switch needs at least one (mask, policy), in a list, got {described(cases)}"
            )
        self.cases = [(_as_mask(mask), as_policy(policy)) for mask, policy in cases]
        lengths = {mask.numel() for mask, _ in self.cases}
        if len(lengths) > 1:
            raise ValueError(
                f"all masks must be as long as each other, got lengths {sorted(lengths)}"
            )
        covered = torch.stack([mask.long() for mask, _ in self.cases]).sum(dim=0)
        if not bool((covered == 1).all()):
            raise ValueError(
                f"every part must be in exactly one mask, got counts {covered.tolist()}"
            )

    @property
    def inner(self) -> dict[str, Threshold]:
        """The policies by position."""
        return {str(i): policy for i, (_, policy) in enumerate(self.cases)}

    def init(self, n_parts: int, device: torch.device | str = "cpu") -> None:
        """Start every policy afresh."""
        if len(self.cases[0][0]) != n_parts:
            raise ValueError(f"masks have {len(self.cases[0][0])} parts, the clipper has {n_parts}")
        self.cases = [(mask.to(device), policy) for mask, policy in self.cases]
        super().init(n_parts, device)

    def __call__(self, sizes: Tensor, context: Context) -> Limits:
        """Ask every policy about its own parts."""
        limits: Limits = torch.empty_like(sizes)
        for mask, policy in self.cases:
            own = replace(context, active=context.active & mask, clean=False)
            choose = partial(torch.where, mask)
            limits = on_both_sides(choose, policy(sizes, own).to(sizes), limits)
        return limits

    def __repr__(self) -> str:
        parts = [f"({int(mask.sum())} of {len(mask)} parts, {own!r})" for mask, own in self.cases]
        return f"Switch([{', '.join(parts)}])"


def all_of(policy: Threshold) -> Iterator[Threshold]:
    """A policy, and those that it is made of.

    Args:
        policy: any policy.
    """
    yield policy
    for inner in getattr(policy, "inner", {}).values():
        yield from all_of(inner)


def _is_pair(case: object) -> bool:
    return isinstance(case, tuple | list) and len(case) == 2


def _as_mask(mask: Sequence[bool] | Tensor) -> Tensor:
    """A mask as a tensor of bools, or ``ValueError``."""
    try:
        held = mask if isinstance(mask, Tensor) else torch.tensor(mask, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        held = torch.empty(0)
    if held.dtype is not torch.bool or held.ndim != 1:
        raise ValueError(f"a mask must be a sequence of bools, one a part, got {described(mask)}")
    return held
