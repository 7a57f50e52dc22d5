"""What is tuned, and within which bounds: the space that configurations are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Choice", "Linear", "Log", "Space"]

Value = float | int | str


@dataclass(frozen=True)
class Linear:
    """A coordinate drawn evenly between two ends.

    An end is *open* where nothing lies beyond it (no warm-up, a threshold that never clips): a best
    configuration there is no reason to look further.
    """

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{self}: expected finite ends, low below high")

    def at(self, u: float) -> float:
        """The value at place u in [0, 1]."""
        return self.low + u * (self.high - self.low)

    def place(self, value: Any) -> float:
        """Where a value lies: the inverse of :meth:`at`."""
        return (float(value) - self.low) / (self.high - self.low)

    @property
    def decades(self) -> float | None:
        """How many powers of ten lie between the ends, of a coordinate drawn in them."""
        return None


@dataclass(frozen=True)
class Log(Linear):
    """A coordinate drawn evenly in its logarithm.

    >>> Log(0.01, 1.0).at(0.5), Log(0.01, 1.0).decades
    (0.1, 2.0)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"{self}: expected low above 0")

    def at(self, u: float) -> float:
        """The value at place u in [0, 1]."""
        return float(self.low * (self.high / self.low) ** u)

    def place(self, value: Any) -> float:
        """Where a value lies: the inverse of :meth:`at`."""
        return math.log(float(value) / self.low) / math.log(self.high / self.low)

    @property
    def decades(self) -> float | None:
        """How many powers of ten lie between the ends."""
        return math.log10(self.high / self.low)


class Choice:
    """A coordinate of a few values, equally likely; it has no edges."""

    open_low = open_high = True
    decades = None

    def __init__(self, *values: Value) -> None:
        if len(set(values)) != len(values) or len(values) < 2:
            raise ValueError(f"Choice{values}: expected at least two values, all different")
        self.values = values

    def at(self, u: float) -> Value:
        """The value at place u in [0, 1]."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def place(self, value: Any) -> float:
        """The middle of the value's share of [0, 1]."""
        return (self.values.index(value) + 0.5) / len(self.values)

    def __repr__(self) -> str:
        return f"Choice{self.values}"


Coordinate = Linear | Choice


class Space:
    """Named coordinates; configurations are points of one scrambled Sobol sequence in all of them.

    >>> [round(c["lr"], 3) for c in Space(lr=Log(0.01, 1.0)).draws(3, seed=1)]
    [0.037, 0.645, 0.113]
    """

    def __init__(self, **coordinates: Coordinate) -> None:
        if not coordinates:
            raise ValueError("a space needs at least one coordinate")
        for name, coordinate in coordinates.items():
            if not isinstance(coordinate, Linear | Choice):
                raise ValueError(f"{name} = {coordinate!r}, expected Log, Linear or Choice")
        self.coordinates: Mapping[str, Coordinate] = coordinates

    def draws(self, n: int, seed: int) -> list[dict[str, Value]]:
        """The first n points of the sequence that the seed scrambles."""
        from scipy.stats.qmc import Sobol

        sampler = Sobol(len(self.coordinates), rng=np.random.default_rng(seed))
        points = sampler.random_base2(math.ceil(math.log2(max(n, 2))))[:n]
        return [
            {
                name: coordinate.at(u)
                for (name, coordinate), u in zip(
                    self.coordinates.items(), point.tolist(), strict=True
                )
            }
            for point in points
        ]

    def about(self) -> dict[str, Any]:
        """The space as literals, for a registration and a record."""
        return {name: _about(coordinate) for name, coordinate in self.coordinates.items()}

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Space:
        """The space that :meth:`about` describes; ``ValueError`` if it is none."""
        try:
            return cls(**{name: _of(dict(one)) for name, one in about.items()})
        except (TypeError, KeyError) as error:
            raise ValueError(f"space = {about!r:.200}: {error}") from None


def _about(coordinate: Coordinate) -> dict[str, Any]:
    if isinstance(coordinate, Choice):
        return {"kind": "choice", "values": list(coordinate.values)}
    ends = {"low": coordinate.low, "high": coordinate.high}
    opened = [end for end in ("low", "high") if getattr(coordinate, f"open_{end}")]
    return {"kind": "log" if isinstance(coordinate, Log) else "linear", **ends, "open": opened}


def _of(about: dict[str, Any]) -> Coordinate:
    kind = about.pop("kind")
    if kind == "choice":
        return Choice(*about["values"])
    opened = about.pop("open")
    made = Log if kind == "log" else Linear
    return made(**about, open_low="low" in opened, open_high="high" in opened)
