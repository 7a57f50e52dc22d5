"""The policies with a limit of their own, and those made of other policies."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cliplab.policy import Context, State, Threshold, check_count, check_positive


class Fixed(Threshold):
    """The same limit at every step: ``limit = c``. ``inf`` means never.

    >>> Fixed(1.0)
    Fixed(value=1.0)
    """

    stateless = True

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = check_positive("threshold", value, zero=True)

    def __call__(self, sizes: Tensor, context: Context) -> Tensor:
        """Return ``c`` for every part."""
        return torch.full_like(sizes, self.value)


class Decay(Threshold):
    """Lower the limit while steps keep hitting it.

    After ``patience`` hits in a row ``c <- max(alpha * c, floor)`` and the count starts again;
    a step below the limit sets the count to zero.
    """

    def __init__(
        self, initial: float = 1.0, alpha: float = 0.9, patience: int = 5, floor: float = 1e-3
    ) -> None:
        super().__init__()
        self.initial = check_positive("initial", initial)
        self.alpha = check_positive("alpha", alpha)
        if self.alpha >= 1:
            raise ValueError(f"alpha must be between 0 and 1, got {alpha!r}")
        self.patience = check_count("patience", patience)
        self.floor = check_positive("floor", floor)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at the initial limit with no hits."""
        return {
            "limit": torch.full((n_parts,), self.initial, device=device),
            "hits": torch.zeros(n_parts, dtype=torch.long, device=device),
        }

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer with the limit as it stands, then count the hit."""
        limit = state["limit"]
        hits = torch.where(sizes > limit, state["hits"] + 1, 0)
        lower = hits >= self.patience
        after = torch.where(
            lower, (limit * self.alpha).clamp(min=min(self.floor, self.initial)), limit
        )
        return limit, {"limit": after, "hits": torch.where(lower, 0, hits)}


class TargetRate(Threshold):
    """Steer to a wanted clip frequency: ``c <- c * exp(speed * (hit - rate))``, per part.

    ``hit`` is 1 where ``n > c``. Inside ``[low, high]`` the frequency over T steps is off ``rate``
    by exactly ``log(c_T / c_0) / (speed * T)``, whatever the sizes are distributed like. From the
    quantile it has found, c rises by ``exp(speed)`` a step at most and falls by
    ``exp(speed * rate)``. Source: Andrew et al. 2019, for one gradient instead of many.
    """

    def __init__(
        self,
        rate: float = 0.05,
        initial: float = 1.0,
        speed: float = 0.2,
        low: float = 1e-8,
        high: float = 1e8,
    ) -> None:
        super().__init__()
        self.rate = check_positive("rate", rate)
        if self.rate >= 1:
            raise ValueError(f"rate must be between 0 and 1, got {rate!r}")
        self.speed = check_positive("speed", speed)
        self.low, self.high = check_positive("low", low), check_positive("high", high)
        self.initial = check_positive("initial", initial)
        if not self.low <= self.initial <= self.high:
            raise ValueError(f"initial must be between {low!r} and {high!r}, got {initial!r}")

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin at the initial limit."""
        return {"limit": torch.full((n_parts,), self.initial, device=device)}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer with the limit as it stands, then move it."""
        limit = state["limit"]
        up, down = math.exp(self.speed * (1 - self.rate)), math.exp(-self.speed * self.rate)
        after = limit * torch.where(sizes > limit, up, down)
        return limit, {"limit": after.clamp(self.low, self.high)}


class Scheduled(Threshold):
    """Any function of step and learning rate: ``limit = fn(step, lr)``, a number >= 0.

    ``step`` counts from 0; ``lr`` is None where the clipper is not attached to an optimizer.
    Raises ``ValueError`` for any other answer. Only the product of limit and learning rate
    matters where every step is clipped; a limit proportional to the learning rate:

    >>> policy = Scheduled(lambda step, lr: 100 * lr)
    >>> policy.init(1)
    >>> policy(torch.tensor([5.0]), Context(active=torch.tensor([True]), step=0, lr=0.02))
    tensor([2.])
    """

    stateless = True

    def __init__(self, fn: Callable[[int, float | None], float]) -> None:
        super().__init__()
        if not callable(fn):
            raise ValueError(f"Scheduled needs a function of step and lr, got {fn!r}")
        self.fn = fn

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Ask the function."""
        limit = self.fn(context.step, context.lr)
        check_positive(f"the limit at step {context.step}", limit, zero=True)
        return torch.full_like(sizes, limit), {}


def as_policy(threshold: float | Threshold) -> Threshold:
    """Return a number as ``Fixed``, and a policy as a copy, so that no state is shared.

    >>> as_policy(2.0)
    Fixed(value=2.0)
    """
    return copy.deepcopy(threshold) if isinstance(threshold, Threshold) else Fixed(threshold)


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
        if set(state) != {*self.state, *self.inner}:
            names = sorted([*self.state, *self.inner])
            raise ValueError(f"{type(self).__name__}: expected {names}, got {sorted(state)}")
        super().check_state_dict({name: state[name] for name in self.state})
        for name, policy in self.inner.items():
            policy.check_state_dict(state[name])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over all states, or none."""
        self.check_state_dict(state)
        for name, tensor in self.state.items():
            self.state[name] = state[name].to(tensor).clone()
        for name, policy in self.inner.items():
            policy.load_state_dict(state[name])


class Bounded(Wrapper):
    """Keep a policy's limits in bounds: ``limit = min(max(inner, low), high)``.

    Relative policies alone do not stop an explosion; a bound does. The inner policy is not told:
    it sees raw sizes, and what it learns is clipped, if at all, at its own limit, not at the bound
    (as ZClip does with its ``max_grad_norm``).

    >>> policy = Bounded(Fixed(5.0), high=1.0)
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

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Ask and clamp."""
        return self.policy(sizes, context).clamp(self.low, self.high), {}


class AfterWarmup(Wrapper):
    """``until`` rules a part's first ``steps`` active finite steps; ``policy`` already learns.

    Both are numbers or policies.
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

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Ask both and choose."""
        first, then = self.until(sizes, context), self.policy(sizes, context)
        limit = torch.where(state["count"] < self.steps, first, then)
        return limit, {"count": state["count"] + 1}


class Switch(Wrapper):
    """Different policies for different parts: ``Switch([(mask, policy), ...])``.

    Every part must be in exactly one mask (a sequence of bools, ``[n_parts]``).

    >>> policy = Switch([([True, False], Fixed(1.0)), ([False, True], Fixed(9.0))])
    >>> policy.init(2)
    >>> policy(torch.tensor([5.0, 5.0]), Context(active=torch.tensor([True, True])))
    tensor([1., 9.])
    """

    def __init__(self, cases: Sequence[tuple[Sequence[bool] | Tensor, Threshold]]) -> None:
        super().__init__()
        self.cases = [(torch.as_tensor(mask, dtype=torch.bool), policy) for mask, policy in cases]
        if not self.cases:
            raise ValueError("Switch needs at least one (mask, policy)")
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

    def __call__(self, sizes: Tensor, context: Context) -> Tensor:
        """Ask every policy about its own parts."""
        limits = torch.empty_like(sizes)
        for mask, policy in self.cases:
            own = replace(context, active=context.active & mask, clean=False)
            limits = torch.where(mask, policy(sizes, own).to(limits), limits)
        return limits
