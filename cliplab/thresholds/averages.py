"""The relative policies: limits that come from averages of past sizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliplab.checks import check_count, check_flag, described, may_look
from cliplab.thresholds.base import SINGLE, Context, State, Threshold, check_decay, check_single


class Windowed(Threshold):
    """Base of the policies that answer from a window of the last raw sizes."""

    def __init__(self, window: int, warmup: int) -> None:
        super().__init__()
        self.window = check_count("window", window)
        self.warmup = check_count("warmup", warmup)
        if self.warmup > self.window:
            raise ValueError(f"warmup must be at most window={self.window}, got {self.warmup}")

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with an empty window."""
        return {
            "sizes": torch.zeros(n_parts, self.window, dtype=torch.float32, device=device),
            "count": torch.zeros(n_parts, dtype=torch.long, device=device),
        }


class MovingAverage(Windowed):
    """A multiple of the mean of the last raw sizes: ``limit = multiplier * mean(window)``.

    The current size is not part of its own limit; no limit (``inf``) before ``warmup`` sizes.
    Like every purely relative rule it follows an explosion: measured sizes are learnt unclipped.

    Args:
        multiplier: limit over the mean, > 0.
        window: sizes in the mean (steps).
        warmup: sizes before there is a limit (steps), at most ``window``.
    """

    def __init__(self, multiplier: float = 2.0, window: int = 100, warmup: int = 10) -> None:
        self.multiplier = check_single("multiplier", multiplier)
        super().__init__(window, warmup)

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer from the window, then put the size into it."""
        count = state["count"]
        mean = (state["sizes"] / count.clamp(1, self.window)[:, None]).sum(dim=1)
        limit = torch.where(count >= self.warmup, self.multiplier * mean, math.inf)
        after = _put(state["sizes"], count % self.window, sizes)
        return limit, {"sizes": after, "count": count + 1}


class Deviations(Windowed):
    """Standard deviations above the mean of the last raw sizes: ``limit = mean + k * std``.

    ``std`` is the biased one, at least 1e-6. The current size is not part of its own limit; no
    limit (``inf``) before ``warmup`` sizes. A spike is learnt as it is and lifts the next limits:
    that follows levels and lets a second spike pass. Source: levanter's
    ``clip_update_by_historical_norm``, there of the update.

    Args:
        k: standard deviations above the mean, >= 0.
        window: sizes in the mean (steps).
        warmup: sizes before there is a limit (steps), at most ``window``.
    """

    def __init__(self, k: float = 3.0, window: int = 128, warmup: int = 64) -> None:
        self.k = check_single("k", k, zero=True)
        super().__init__(window, warmup)

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer from the window, then put the size into it."""
        mean, std = _moments(state["sizes"], state["count"])
        limit = mean + self.k * std.clamp(min=1e-6)
        limit = torch.where(state["count"] >= self.warmup, limit, math.inf)
        after = _put(state["sizes"], state["count"] % self.window, sizes)
        return limit, {"sizes": after, "count": state["count"] + 1}


class EMA(Threshold):
    """A multiple of the running mean of the clipped sizes: ``limit = ratio * gamma`` (AdaGC).

    ``gamma <- beta * gamma + (1 - beta) * min(n, limit)``. In a part's first ``warmup`` steps the
    gradient as a whole is held to ``initial`` (``limit = n * initial / total``, no limit where the
    total is below it) and gamma is the smallest clipped size. A part whose gamma is 0 takes its
    next size as gamma; published, it would stay at 0 for ever. ``warmup=0`` begins at the first
    size, which is OLMo's ``max_grad_norm_ratio``. Source: Wang et al. 2025 (AdaGC).

    Args:
        ratio: limit over the running mean, > 0.
        beta: share of the mean that is kept at a step, in [0, 1).
        warmup: first steps of a part, with another rule (steps).
        initial: norm of the whole gradient in these steps at most.
    """

    def __init__(
        self, ratio: float = 1.05, beta: float = 0.98, warmup: int = 100, initial: float = 1.0
    ) -> None:
        super().__init__()
        self.ratio = check_single("ratio", ratio)
        self.beta = check_decay("beta", beta)
        self.warmup = check_count("warmup", warmup, zero=True)
        self.initial = check_single("initial", initial)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with nothing learnt."""
        return {
            "gamma": torch.zeros(n_parts, dtype=torch.float32, device=device),
            "count": torch.zeros(n_parts, dtype=torch.long, device=device),
        }

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer, then learn the clipped size."""
        gamma = torch.where(state["gamma"] > 0, state["gamma"], sizes)
        limit, warm = self.ratio * gamma, state["count"] < self.warmup
        warming = self.warmup > 0 and (not may_look(warm) or bool(warm.any()))
        if warming:
            total = context.total_norm.to(sizes)
            shared = torch.where(total > self.initial, sizes * (self.initial / total), math.inf)
            limit = torch.where(warm, shared, limit)
        learnt = torch.minimum(sizes, limit)
        after = gamma.lerp(learnt, 1 - self.beta)
        if warming:
            after = torch.where(warm, torch.minimum(gamma, learnt), after)
        return limit, {"gamma": after, "count": state["count"] + 1}


class ZScore(Threshold):
    """A number of standard deviations above the running mean: ``level = mean + z * std`` (ZClip).

    What a size above the level is brought to is the ``response``: the "level" itself (``z`` is a
    percentile's where ``z = Phi^-1(p)``), the "mean", or the "reciprocal"
    ``clip_factor * (mean + z^2 / z_t * std)`` with ``z_t`` the size's own z-score, so that a larger
    spike becomes a smaller step. The clipped size is learnt:
    ``mean <- alpha * mean + (1 - alpha) * x``, ``var <- alpha * var + (1 - alpha) * (x - mean)^2``
    with the new mean; ``learn_spikes=False`` leaves both as they are at a spike. No limit in the
    first ``warmup`` steps, whose mean and (biased) variance they start from. ``eps`` is added to
    the standard deviation of "mean" and "reciprocal". Source: Kumar et al. 2025 (ZClip), and
    bluorion-com/ZClip at 584ce4f.

    Args:
        alpha: share of mean and variance that is kept at a step, in [0, 1).
        z: standard deviations above the mean, > 0.
        warmup: first steps, without a limit (steps).
        response: "reciprocal", "mean" or "level".
        clip_factor: multiplier of what "reciprocal" answers, > 0.
        learn_spikes: whether a clipped spike is learnt.
        eps: added to the standard deviation (norm), >= 0.
    """

    def __init__(
        self,
        alpha: float = 0.97,
        z: float = 2.5,
        warmup: int = 25,
        response: str = "reciprocal",
        clip_factor: float = 1.0,
        learn_spikes: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.alpha = check_decay("alpha", alpha)
        self.z = check_single("z", z)
        self.warmup = check_count("warmup", warmup)
        if response not in ("reciprocal", "mean", "level"):
            got = described(response)
            raise ValueError(f"response must be reciprocal, mean or level, got {got}")
        self.response = response
        self.clip_factor = check_single("clip_factor", clip_factor)
        self.learn_spikes = check_flag("learn_spikes", learn_spikes)
        self.eps = check_single("eps", eps, zero=True)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with nothing seen."""
        return {
            "mean": torch.zeros(n_parts, dtype=torch.float32, device=device),
            # not the variance: its square would overflow
            "std": torch.zeros(n_parts, dtype=torch.float32, device=device),
            "count": torch.zeros(n_parts, dtype=torch.long, device=device),
        }

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer, then learn the clipped size."""
        mean, std, count = state["mean"], state["std"], state["count"]
        warm = count < self.warmup
        warming = not may_look(warm) or bool(warm.any())
        scale = std if self.response == "level" else std + self.eps
        level = limit = torch.add(mean, scale, alpha=self.z)
        if warming:
            level = limit = torch.where(warm, math.inf, level)
        spike = sizes > level
        if self.response == "reciprocal":
            above = std * (scale / (sizes - mean))
            answer = self.clip_factor * torch.add(mean, above, alpha=min(self.z**2, SINGLE.max))
            limit = torch.where(spike, answer, level)
        elif self.response == "mean":
            limit = torch.where(spike, mean, level)
        # var <- keep * (var + (gain * change)^2): exponential, or of the warm-up so far.
        keep: float | Tensor = self.alpha
        gain: float | Tensor = math.sqrt(self.alpha * (1 - self.alpha))
        if warming:
            share = 1 / (count + 1).to(mean)
            keep, gain = torch.where(warm, 1 - share, keep), torch.where(warm, share.sqrt(), gain)
        change = torch.minimum(sizes, limit) - mean
        after = {
            "mean": mean + (1 - keep) * change,
            "std": keep**0.5 * torch.hypot(std, gain * change),
        }
        if not self.learn_spikes:
            after = {name: torch.where(spike, state[name], new) for name, new in after.items()}
        return limit, {**after, "count": count + 1}


class Queue(Threshold):
    """Mean and spread of the last clipped sizes: ``limit = multiplier * mean + z * std`` (EDM).

    The queue holds ``length`` entries, first only ``initial`` (large), and takes in
    ``min(n, limit)``; ``std`` is the biased one. Source: Hoogeboom et al. 2022, code.

    Args:
        length: entries of the queue (steps).
        multiplier: of the mean, > 0.
        z: standard deviations on top, >= 0.
        initial: the first entry (norm), > 0.
    """

    def __init__(
        self,
        length: int = 50,
        multiplier: float = 1.5,
        z: float = 2.0,
        initial: float = 3000.0,
    ) -> None:
        super().__init__()
        self.length = check_count("length", length)
        self.multiplier = check_single("multiplier", multiplier)
        self.z = check_single("z", z, zero=True)
        self.initial = check_single("initial", initial)

    def start(self, n_parts: int, device: torch.device) -> State:
        """Begin with one large entry."""
        sizes = torch.zeros(n_parts, self.length, dtype=torch.float32, device=device)
        sizes[:, 0] = self.initial
        return {"sizes": sizes, "count": torch.ones(n_parts, dtype=torch.long, device=device)}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Answer from the queue, then put the clipped size into it."""
        queue, count = state["sizes"], state["count"]
        mean, std = _moments(queue, count)
        limit = self.multiplier * mean + self.z * std
        after = _put(queue, count % self.length, torch.minimum(sizes, limit))
        return limit, {"sizes": after, "count": count + 1}


def _moments(buffer: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased standard deviation of the first ``count[i]`` entries of every row."""
    filled = torch.arange(buffer.shape[1], device=buffer.device) < count[:, None]
    share = filled.to(buffer) / count.clamp(1, buffer.shape[1])[:, None]
    mean = (buffer * share).sum(dim=1)
    return mean, _length((buffer - mean[:, None]) * share.sqrt())


def _length(rows: Tensor) -> Tensor:
    """Norms of rows, of which the squares may be out of range: taken at a power of two."""
    peak = rows.abs().amax(dim=1)
    power = torch.where(peak > 0, peak / (2 * torch.frexp(peak).mantissa), 1.0)
    length: Tensor = (rows / power[:, None]).norm(dim=1)
    return length * power


def _put(buffer: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Copy of ``buffer [n, k]`` with ``buffer[i, index[i]] = values[i]``."""
    return buffer.scatter(1, index[:, None], values[:, None].to(buffer))
