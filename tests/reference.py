"""Clipping by its definitions: in doubles, dense, one part and one number after the other.

Nothing of cliplab is used. A policy is given every size as the clipper reported it, so that what is
compared is the rule, and a last digit of a size cannot decide between two histories.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Part = list[Tensor]  # views of dense gradients


def parts(scope: str, tensors: Sequence[Tensor], groups: Sequence[Sequence[int]]) -> list[Part]:
    """The parts of a gradient; ``groups`` are the positions of the tensors of each group."""
    if scope in ("global", "element"):
        return [list(tensors)]
    if scope == "group":
        return [[tensors[i] for i in group] for group in groups]
    if scope == "tensor":
        return [[t] for t in tensors]
    if scope == "member":
        return [[t[m] for t in tensors] for m in range(len(tensors[0]))]
    return [[row] for t in tensors for row in (t.unbind() if t.ndim > 1 else [t])]


def owners(
    scope: str, tensors: Sequence[Tensor], groups: Sequence[Sequence[int]]
) -> list[Sequence[int]]:
    """Positions of the tensors that every part is made of."""
    everything = range(len(tensors))
    if scope in ("global", "element"):
        return [everything]
    if scope == "group":
        return list(groups)
    if scope == "tensor":
        return [[i] for i in everything]
    if scope == "member":
        return [everything] * len(tensors[0])
    return [[i] for i, t in enumerate(tensors) for _ in range(len(t) if t.ndim > 1 else 1)]


def norm(part: Part, order: float) -> float:
    """``(sum |g|^p)^(1/p)`` over all entries of a part, relative to the largest."""
    entries = torch.cat([t.abs().double().flatten() for t in part])
    largest = float(entries.max()) if len(entries) else 0.0
    if not 0 < largest < math.inf or order == math.inf:
        return math.nan if bool(entries.isnan().any()) else largest
    return float((entries / largest).pow(order).sum().pow(1 / order)) * largest


class Undecided(Exception):
    """A size so close to a limit that rounding decides on which side it is."""


def above(size: float, limit: float) -> bool:
    """Whether a size is above a limit, both known to a few digits only."""
    if limit < math.inf and abs(size - limit) <= 1e-4 * limit:
        raise Undecided
    return size > limit


class Policy:
    """One part's policy; ``know`` holds ``total``, ``weight``, ``entries``."""

    raises = False  # whether the last size is to be raised to its limit

    def limit(self, size: float, know: dict[str, float]) -> float:
        raise NotImplementedError


class Fixed(Policy):
    def __init__(self, value: float) -> None:
        self.value = value

    def limit(self, size: float, know: dict[str, float]) -> float:
        return self.value


class MovingAverage(Policy):
    def __init__(self, multiplier: float, window: int, warmup: int) -> None:
        self.multiplier, self.window, self.warmup = multiplier, window, warmup
        self.seen: list[float] = []

    def limit(self, size: float, know: dict[str, float]) -> float:
        last = self.seen[-self.window :]
        self.seen.append(size)
        if len(self.seen) - 1 < self.warmup:
            return math.inf
        return self.multiplier * sum(last) / len(last)


class EMA(Policy):
    def __init__(self, ratio: float, beta: float, warmup: int, initial: float) -> None:
        self.ratio, self.beta, self.warmup, self.initial = ratio, beta, warmup, initial
        self.gamma, self.count = 0.0, 0

    def limit(self, size: float, know: dict[str, float]) -> float:
        gamma = self.gamma if self.gamma > 0 else size
        limit = self.ratio * gamma
        warm = self.count < self.warmup
        if warm:
            large = know["total"] > self.initial
            limit = size * self.initial / know["total"] if large else math.inf
        learnt = min(size, limit)
        self.gamma = min(gamma, learnt) if warm else self.beta * gamma + (1 - self.beta) * learnt
        self.count += 1
        return limit


class Deviations(Policy):
    def __init__(self, k: float, window: int, warmup: int) -> None:
        self.k, self.window, self.warmup = k, window, warmup
        self.seen: list[float] = []

    def limit(self, size: float, know: dict[str, float]) -> float:
        last = self.seen[-self.window :]
        self.seen.append(size)
        if len(self.seen) - 1 < self.warmup:
            return math.inf
        mean = sum(last) / len(last)
        variance = sum((x - mean) ** 2 for x in last) / len(last)
        return mean + self.k * max(math.sqrt(variance), 1e-6)


class AdaNorm(Policy):
    def __init__(self, r: float) -> None:
        self.r, self.mean = r, 0.0

    def limit(self, size: float, know: dict[str, float]) -> float:
        self.mean = self.r * self.mean + (1 - self.r) * size
        self.raises = size > 0 and above(self.mean, size)
        return self.mean if self.raises else math.inf


class AGGC(Policy):
    """Without a schedule."""

    def __init__(self, beta: float, low: float, high: float, floor: float, raises: bool) -> None:
        self.beta, self.low, self.high, self.floor = beta, low, high, floor
        self.may_raise, self.mean = raises, 0.0

    def limit(self, size: float, know: dict[str, float]) -> float:
        lower, upper = max(self.floor, self.low * self.mean), self.high * self.mean
        factor = 1.0
        self.raises = False
        if upper > 0 and above(size, upper):
            factor = max(upper / size, 0.9)
        elif self.may_raise and size > 0 and above(lower, size):
            factor, self.raises = min(lower / size, 1.1), True
        self.mean = self.beta * self.mean + (1 - self.beta) * size * factor
        if factor != 1:
            return size * factor
        return max(upper, 0.9 * size) if upper > 0 else math.inf


class GradientStabilizer(Policy):
    def __init__(self, gamma1: float, gamma2: float, eps: float) -> None:
        self.gamma1, self.gamma2, self.eps = gamma1, gamma2, eps
        self.first = self.second = 0.0
        self.count = 0

    def limit(self, size: float, know: dict[str, float]) -> float:
        if size > 0:
            self.count += 1
            self.first = self.gamma1 * self.first + (1 - self.gamma1) * size
            self.second = self.gamma2 * self.second + (1 - self.gamma2) * size**2
        if not self.count:
            return 0.0
        mean = self.first / (1 - self.gamma1**self.count)
        return mean / (math.sqrt(self.second / (1 - self.gamma2**self.count)) + self.eps)


class TrustRatio(Policy):
    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def limit(self, size: float, know: dict[str, float]) -> float:
        return self.ratio * know["weight"] if know["weight"] > 0 else math.inf


class Percentile(Policy):
    def __init__(self, percentile: float, window: int | None = None) -> None:
        self.percentile, self.window = percentile, window
        self.seen: list[float] = []

    def limit(self, size: float, know: dict[str, float]) -> float:
        self.seen.append(size)
        ordered = sorted(self.seen if self.window is None else self.seen[-self.window :])
        rank = (len(ordered) - 1) * self.percentile / 100
        low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
        return low + (rank - math.floor(rank)) * (high - low)


class ZScore(Policy):
    def __init__(self, alpha: float, z: float, warmup: int, response: str) -> None:
        self.alpha, self.z, self.warmup, self.response = alpha, z, warmup, response
        self.seen: list[float] = []
        self.mean = self.variance = 0.0

    def limit(self, size: float, know: dict[str, float]) -> float:
        self.seen.append(size)
        count = len(self.seen)
        if count <= self.warmup:
            self.mean = sum(self.seen) / count
            self.variance = sum((x - self.mean) ** 2 for x in self.seen) / count
            return math.inf
        std = math.sqrt(self.variance)
        scale = std if self.response == "level" else std + 1e-6
        limit = self.mean + self.z * scale
        spike = above(size, limit)
        if spike and self.response == "mean":
            limit = self.mean
        if spike and self.response == "reciprocal":
            limit = self.mean + self.z**2 * std * scale / (size - self.mean)
        x = limit if spike else size
        self.mean = self.alpha * self.mean + (1 - self.alpha) * x
        self.variance = self.alpha * self.variance + (1 - self.alpha) * (x - self.mean) ** 2
        return limit


class Queue(Policy):
    def __init__(self, length: int, multiplier: float, z: float, initial: float) -> None:
        self.length, self.multiplier, self.z = length, multiplier, z
        self.queue = [initial]

    def limit(self, size: float, know: dict[str, float]) -> float:
        mean = sum(self.queue) / len(self.queue)
        variance = sum((x - mean) ** 2 for x in self.queue) / len(self.queue)
        limit = self.multiplier * mean + self.z * math.sqrt(variance)
        self.queue = [*self.queue, min(size, limit)][-self.length :]
        return limit


class Decay(Policy):
    def __init__(self, initial: float, alpha: float, patience: int, floor: float) -> None:
        self.now, self.alpha, self.patience, self.floor = initial, alpha, patience, floor
        self.hits = 0

    def limit(self, size: float, know: dict[str, float]) -> float:
        limit = self.now
        self.hits = self.hits + 1 if above(size, limit) else 0
        if self.hits == self.patience:
            self.now, self.hits = max(self.alpha * limit, self.floor), 0
        return limit


class TargetRate(Policy):
    def __init__(self, rate: float, initial: float, speed: float) -> None:
        self.rate, self.now, self.speed = rate, initial, speed

    def limit(self, size: float, know: dict[str, float]) -> float:
        limit = self.now
        self.now *= math.exp(self.speed * (above(size, limit) - self.rate))
        return limit


class WeightRatio(Policy):
    def __init__(self, ratio: float, eps: float) -> None:
        self.ratio, self.eps = ratio, eps

    def limit(self, size: float, know: dict[str, float]) -> float:
        return self.ratio * max(know["weight"], self.eps)


class RMS(Policy):
    def __init__(self, value: float) -> None:
        self.value = value

    def limit(self, size: float, know: dict[str, float]) -> float:
        return self.value * math.sqrt(max(know["entries"], 1))


class Quartiles(Policy):
    """The lower of two middle values; zeros are not learnt."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.seen: list[float] = []

    def quartiles(self) -> list[float]:
        last = sorted(self.seen[-self.window :])
        return [last[(len(last) - 1) * k // 4] for k in (1, 2, 3)]

    def learn(self, size: float) -> None:
        if size > 0:
            self.seen.append(size)


class RobustSpike(Quartiles):
    def __init__(self, deviations: float, window: int, spread: float, prior: float) -> None:
        super().__init__(window)
        self.deviations, self.spread, self.prior = deviations, spread, prior

    def limit(self, size: float, know: dict[str, float]) -> float:
        limit = math.inf
        if self.seen:
            low, middle, high = self.quartiles()
            n = min(len(self.seen), self.window) - 1
            s = self.prior * self.spread + n * math.log(high / low) / 1.349
            limit = middle * math.exp(self.deviations * s / (self.prior + n))
        self.learn(size)
        return limit


class SpikeSkip(Quartiles):
    def __init__(self, sigmas: float, window: int, warmup: int, floor: float) -> None:
        super().__init__(window)
        self.sigmas, self.warmup, self.floor = sigmas, warmup, floor

    def limit(self, size: float, know: dict[str, float]) -> float:
        limit = math.inf
        if len(self.seen) >= self.warmup:
            low, middle, high = self.quartiles()
            limit = middle + self.sigmas * max((high - low) / 1.349, self.floor * middle)
        self.learn(size)
        return limit


class Bounded(Policy):
    def __init__(self, policy: Policy, low: float, high: float) -> None:
        self.policy, self.low, self.high = policy, low, high

    def limit(self, size: float, know: dict[str, float]) -> float:
        return min(max(self.policy.limit(size, know), self.low), self.high)


class AfterWarmup(Policy):
    def __init__(self, policy: Policy, steps: int, until: float) -> None:
        self.policy, self.left, self.until = policy, steps, until

    def limit(self, size: float, know: dict[str, float]) -> float:
        limit, self.left = self.policy.limit(size, know), self.left - 1
        return limit if self.left < 0 else self.until


def factors(
    sizes: Sequence[float],
    limits: Sequence[float],
    raises: Sequence[bool],
    mode: str,
    nonfinite: str,
) -> tuple[list[float], bool]:
    """What every part is multiplied by, and whether the step is to be left out."""
    finite = [math.isfinite(n) for n in sizes]
    over = [n > c for n, c in zip(sizes, limits, strict=True)]
    skipped = nonfinite == "skip" and not all(finite)
    if mode == "skip":
        counts = [o and (f or nonfinite != "zero") for o, f in zip(over, finite, strict=True)]
        skipped = skipped or any(counts)
    if skipped and not all(finite):
        return [1.0] * len(sizes), True

    def factor(n: float, c: float, raised: bool) -> float:
        if not math.isfinite(n) and nonfinite == "zero":
            return 0.0
        if not math.isfinite(c) or mode == "skip":
            return 1.0
        if not math.isfinite(n):
            return c / n
        if mode == "soft":
            return c / (c + n) if n > 0 else 1.0
        if mode == "normalise" or raised:
            return min(c / n, 2.0**126) if n > 0 else 1.0
        return min(1.0, c / n) if n > 0 else 1.0

    return list(map(factor, sizes, limits, raises)), skipped


def clamped(entries: Tensor, limit: float) -> Tensor:
    """Every entry brought to a magnitude of at most ``limit``."""
    if entries.is_complex():
        size = entries.abs()
        return torch.where(size > limit, entries * (limit / size), entries)
    return entries.clamp(-limit, limit)
