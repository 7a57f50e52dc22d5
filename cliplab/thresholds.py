"""The policies: fixed, decaying, relative to past sizes, or a different one for each part."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cliplab.policy import Context, State, Threshold, check_count, check_positive


def as_policy(threshold: float | Threshold) -> Threshold:
    """Return a copy of a policy, or the fixed policy of a number."""
    return copy.deepcopy(threshold) if isinstance(threshold, Threshold) else Fixed(threshold)


class Fixed(Threshold):
    """The same limit at every step: ``limit = c``. ``inf`` means never.

    >>> Fixed(1.0)
    Fixed(value=1.0)
    """

    stateless = True

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.value = check_positive("threshold", value, zero=True)

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Return ``c`` for every part."""
        return torch.full_like(sizes, self.value), {}


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


class MovingAverage(Threshold):
    """A multiple of the mean of the last raw sizes: ``limit = multiplier * mean(window)``.

    The current size is not part of its own limit; no limit (``inf``) before ``warmup`` sizes.
    Like every purely relative rule it follows an explosion: measured sizes are learnt unclipped.
    """

    def __init__(self, multiplier: float = 2.0, window: int = 100, warmup: int = 10) -> None:
        super().__init__()
        self.multiplier = check_positive("multiplier", multiplier)
        self.window = check_count("window", window)
        self.warmup = check_count("warmup", warmup)
        if self.warmup > self.window:
            raise ValueError(f"warmup must be at most window={window}, got {warmup!r}")

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with an empty window."""
        return {
            "sizes": torch.zeros(n_parts, self.window, device=device),
            "count": torch.zeros(n_parts, dtype=torch.long, device=device),
        }

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer from the window, then put the size into it."""
        count = state["count"]
        mean = state["sizes"].sum(dim=1) / count.clamp(min=1, max=self.window)
        limit = torch.where(count >= self.warmup, self.multiplier * mean, math.inf)
        return limit, {
            "sizes": _put(state["sizes"], count % self.window, sizes),
            "count": count + 1,
        }


class Percentile(Threshold):
    """A percentile of the sizes seen so far, the current one included (AutoClip).

    ``limit = percentile_p(n_1..n_t)``: exact with linear interpolation for a part's first 4,096
    sizes; beyond that the lower neighbouring size from a log-histogram, within 0.5 %. With
    ``window`` the last ``window`` sizes only, always exact. NaN for a part that is not active.
    Source: Seetharaman et al. 2020.
    """

    exact_sizes = 4096
    _low, _ratio, _bins = math.log(1e-20), math.log(1.0099), 14000  # edges reach 8e39

    def __init__(self, percentile: float = 10.0, window: int | None = None) -> None:
        super().__init__()
        self.percentile = check_positive("percentile", percentile, zero=True)
        if self.percentile > 100:
            raise ValueError(f"percentile must be between 0 and 100, got {percentile!r}")
        self.window = None if window is None else check_count("window", window)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with nothing seen."""
        columns = self.window or self.exact_sizes
        state = {
            "sizes": torch.full((n_parts, columns), math.inf, device=device),
            "count": torch.zeros(n_parts, dtype=torch.long, device=device),
        }
        if self.window is None:
            shape = (n_parts, self._bins)
            state["histogram"] = torch.zeros(shape, dtype=torch.int32, device=device)
        return state

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Put the size in, then answer."""
        count, columns = state["count"] + 1, state["sizes"].shape[1]
        after = {"sizes": _put(state["sizes"], state["count"] % columns, sizes), "count": count}
        # A look at the count is free on a CPU and saves sorting what is not there yet.
        longest = int(count.max()) if count.device.type == "cpu" else columns + 1
        limit = self._from_sizes(
            after["sizes"][:, : min(longest, columns)], count.clamp(max=columns)
        )
        if self.window is None:
            bins = (sizes.log().clamp(min=self._low) - self._low) / self._ratio
            index = bins.long().clamp(max=self._bins - 1)
            added = state["histogram"].gather(1, index[:, None])[:, 0] + 1
            after["histogram"] = _put(state["histogram"], index, added)
            if longest > columns:
                beyond = self._from_histogram(after["histogram"], count)
                limit = torch.where(count <= columns, limit, beyond)
        return torch.where(context.active, limit, math.nan), after

    def _from_sizes(self, sizes: Tensor, count: Tensor) -> Tensor:
        ordered = sizes.sort(dim=1).values
        rank = (count - 1) * (self.percentile / 100)
        below = rank.floor().long()[:, None]
        above = torch.minimum(below + 1, (count - 1)[:, None])
        low, high = ordered.gather(1, below)[:, 0], ordered.gather(1, above)[:, 0]
        return torch.lerp(low, high, (rank - rank.floor()).to(low))

    def _from_histogram(self, histogram: Tensor, count: Tensor) -> Tensor:
        rank = (count - 1) * (self.percentile / 100)
        bins = (histogram.cumsum(dim=1) <= rank[:, None]).sum(dim=1)
        return torch.exp(self._low + (bins + 0.5) * self._ratio)


class Switch(Threshold):
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

    def init(self, n_parts: int, device: torch.device | str = "cpu") -> None:
        """Start every policy afresh."""
        if len(self.cases[0][0]) != n_parts:
            raise ValueError(f"masks have {len(self.cases[0][0])} parts, the clipper has {n_parts}")
        self.cases = [(mask.to(device), policy) for mask, policy in self.cases]
        for _, policy in self.cases:
            policy.init(n_parts, device)

    def __call__(self, sizes: Tensor, context: Context) -> Tensor:
        """Ask every policy about its own parts."""
        limits = torch.empty_like(sizes)
        for mask, policy in self.cases:
            own = replace(context, active=context.active & mask)
            limits = torch.where(mask, policy(sizes, own).to(limits), limits)
        return limits

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all cases by position."""
        return {str(i): policy.state_dict() for i, (_, policy) in enumerate(self.cases)}

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if any case's state is not of its policy."""
        if set(state) != {str(i) for i in range(len(self.cases))}:
            raise ValueError(f"Switch: expected {len(self.cases)} cases, got {sorted(state)}")
        for i, (_, policy) in enumerate(self.cases):
            policy.check_state_dict(state[str(i)])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the states of all cases, or of none."""
        self.check_state_dict(state)
        for i, (_, policy) in enumerate(self.cases):
            policy.load_state_dict(state[str(i)])


def _put(buffer: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Copy of ``buffer [n, k]`` with ``buffer[i, index[i]] = values[i]``."""
    return buffer.scatter(1, index[:, None], values[:, None].to(buffer))
