"""AutoClip's policy: a running percentile, exact at first, at a cost that does not grow."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from cliplab.checks import check_count, check_positive, described, may_look
from cliplab.thresholds.base import Context, State, Threshold
from cliplab.thresholds.packed import contradicts_itself, pack, unpack


class Percentile(Threshold):
    """A percentile of the sizes seen so far, the current one included (AutoClip).

    ``limit = percentile_p(n_1..n_t)``: exact with linear interpolation for a part's first 4,096
    sizes; beyond that the lower neighbouring size from a log-histogram, within 0.5 % (a size below
    1e-20 counts as 1e-20). With ``window`` the last ``window`` sizes only, always exact. The cost
    of a step does not grow. NaN for a part that is not active. A percentile between 0 and 1, which
    may be meant as a share, is warned of. Source: Seetharaman et al. 2020.

    Args:
        percentile: p, in [0, 100].
        window: sizes that count, the last ones (steps); None: all.
    """

    exact_sizes = 4096  # up to as many fp32 holds a rank and three digits of what is beyond it
    # Bins of 0.99 % in blocks, so that a rank is found in two short sums; edges reach 1e40.
    _low, _ratio, _blocks, _shift = math.log(1e-20), math.log(1.0099), 110, 7
    _block = 1 << _shift

    def __init__(self, percentile: float = 10.0, window: int | None = None) -> None:
        super().__init__()
        self.percentile = check_positive("percentile", percentile, zero=True)
        if self.percentile > 100:
            raise ValueError(f"percentile must be between 0 and 100, got {described(percentile)}")
        if 0 < self.percentile < 1:
            share = f"for a share of {self.percentile:g} give {100 * self.percentile:g}"
            text = f"percentile is in percent: {self.percentile:g} is nearly the minimum; {share}"
            warnings.warn(text, UserWarning, stacklevel=2)
        self.window = None if window is None else check_count("window", window)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with nothing seen."""
        shape = (n_parts, self.window or self.exact_sizes)
        ordered = torch.full(shape, math.inf, dtype=torch.float32, device=device)
        state = {"ordered": ordered, "count": torch.zeros(n_parts, dtype=torch.long, device=device)}
        if self.window is not None:
            return {**state, "sizes": ordered.clone()}
        bins = torch.zeros(n_parts, self._blocks, self._block, dtype=torch.int32, device=device)
        return {**state, "bins": bins, "blocks": bins.sum(dim=2, dtype=torch.int32)}

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state; without a window in lists of what is filled of it."""
        state = super().state_dict()
        return pack(state) if "bins" in state and not state["count"].is_meta else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state, also one of an older version, whole or not at all."""
        super().load_state_dict(self._unpacked(state))

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if a saved state is not of this policy and number of parts."""
        whole = self._unpacked(state)
        super().check_state_dict(whole)
        if "bins" in self.state and not self.state["count"].is_meta and contradicts_itself(whole):
            raise ValueError("Percentile: expected as many sizes in the state as it counts")

    def _unpacked(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        packed = isinstance(state, Mapping) and set(state) == {"count", "ordered", "bins"}
        return unpack(state, self.state) if packed and "bins" in self.state else state

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Put the size in, then answer; the histogram is counted up in place."""
        step = self._all if self.window is None else self._last
        limit, after = step(sizes, state, context)
        return torch.where(context.active, limit, math.nan), after

    def _last(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Percentile of the window: take the oldest size out and the new one in."""
        count, columns = state["count"] + 1, state["sizes"].shape[1]
        slot = (state["count"] % columns)[:, None]
        ordered = _insert(_remove(state["ordered"], state["sizes"].gather(1, slot)), sizes)
        last = state["sizes"].scatter(1, slot, sizes[:, None])
        limit = self._exact(ordered, count.clamp(max=columns))
        return limit, {"ordered": ordered, "sizes": last, "count": count}

    def _all(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Percentile of all sizes: from the sorted first ones, or from the histogram."""
        count = state["count"] + 1
        after = {"count": count}
        self._tally(sizes, state, context.active)
        # A look at the counts is free on a CPU, and saves the half that is not asked for.
        looks = may_look(count)
        fewest, most = (int(c) for c in count.aminmax()) if looks else (0, self.exact_sizes + 1)
        if fewest <= self.exact_sizes:
            after["ordered"] = _insert(state["ordered"], sizes)
            limit = self._exact(after["ordered"], count.clamp(max=self.exact_sizes))
        if most > self.exact_sizes:
            beyond = self._estimate(state, count)
            both = fewest <= self.exact_sizes
            limit = torch.where(count <= self.exact_sizes, limit, beyond) if both else beyond
        return limit, after

    def _exact(self, ordered: Tensor, count: Tensor) -> Tensor:
        wide = torch.float64 if ordered.shape[1] > Percentile.exact_sizes else torch.float32
        position = ((count - 1).to(wide) * (self.percentile / 100))[:, None]
        below, above = position.long(), position.ceil().long()
        low, high = ordered.gather(1, below), ordered.gather(1, above)
        return low.lerp(high, (position - below).to(low))[:, 0]

    def _tally(self, sizes: Tensor, state: State, active: Tensor) -> None:
        last = self._blocks * self._block - 1
        bins = sizes.log().sub_(self._low).div_(self._ratio).clamp_(0, last).long()[:, None]
        one = active.int()[:, None]
        state["bins"].flatten(1).scatter_add_(1, bins, one)
        state["blocks"].scatter_add_(1, bins >> self._shift, one)

    def _estimate(self, state: State, count: Tensor) -> Tensor:
        rank = ((count - 1).double() * (self.percentile / 100)).long()[:, None]
        passed = state["blocks"].cumsum(dim=1) <= rank
        block = passed.sum(dim=1, keepdim=True).clamp_(max=self._blocks - 1)
        rank = rank - (state["blocks"] * passed).sum(dim=1, keepdim=True)
        own = state["bins"].gather(1, block[:, :, None].expand(-1, 1, self._block))[:, 0]
        index = (block[:, 0] << self._shift) + (own.cumsum(dim=1) <= rank).sum(dim=1)
        return torch.exp((index.float() + 0.5) * self._ratio + self._low)


def _insert(ordered: Tensor, values: Tensor) -> Tensor:
    """Sorted rows ``[n, k]`` with one value more each; the largest entry falls out."""
    after = torch.minimum(ordered, values[:, None])
    after[:, 1:].clamp_(min=ordered[:, :-1])
    return after


def _remove(ordered: Tensor, values: Tensor) -> Tensor:
    """Sorted rows ``[n, k]`` with one entry less each, ``values [n, 1]``, and inf at the end."""
    return torch.where(ordered < values, ordered, pad(ordered[:, 1:], (0, 1), value=math.inf))
