"""What follows from a race for its user: a rate and a threshold, how flat it is there, the price
of being surer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cliplab.lab.claims.calibration import EQUAL, TWO, calibrate, noise_of
from cliplab.lab.claims.comparison import working
from cliplab.lab.race.race import NONE, NORM, Raced
from cliplab.lab.race.size import larger, runs_of
from cliplab.lab.study.size import SIZES

__all__ = [
    *("ERROR", "STUDIES", "Choice", "Flat", "Surer"),
    *("at_an_edge", "choice", "flat", "surer", "works"),
]

STUDIES = 50  # simulated, of each size
ERROR = 0.5 / math.sqrt(STUDIES)  # of a chance, at most
EDGE = 0.1  # the outer part of a range


@dataclass(frozen=True)
class Choice:
    """The best configuration of a way, by its fresh runs; ``clipped``: share of updates, if told.

    ``loss`` is None where all of them failed; ``idle``: its runs are those without clipping.
    """

    lr: float
    threshold: float | None
    loss: float | None
    failed: int
    runs: int
    clipped: float | None
    idle: bool


@dataclass(frozen=True)
class Flat:
    """How many thresholds work (see :func:`works`), of how many, and which."""

    works: int
    drawn: int
    low: float
    high: float


@dataclass(frozen=True)
class Surer:
    """A larger race: its most runs and minutes, half the interval it should have.

    ``equal``, ``two``: the simulated chances of "no matter" for equal ways (None without a control)
    and of seeing two margins.
    """

    name: str
    runs: int
    minutes: float
    half: float | None
    equal: float | None = None
    two: float | None = None


def choice(raced: Raced, way: str) -> Choice:
    """What the way would be run with."""
    first = raced.ways[way].picks()[0]
    of_it = [row for row in raced.rows if row["configuration"] == first]
    own = [row for row in of_it if row["way"] == way]
    fresh = [row for row in own if row["stage"] != "screening"]
    good = [row for row in fresh if not row["failed"]]
    plain = {row["seed"]: row["test_loss"] for row in of_it if row["way"] == NONE}
    twins = [(row["test_loss"], plain[row["seed"]]) for row in own if row["seed"] in plain]
    shares = [row["clip_fraction"] for row in good if row.get("clip_fraction") is not None]
    return Choice(
        own[0]["lr"],
        own[0]["threshold"],
        float(np.mean([row["test_loss"] for row in good])) if good else None,
        len(fresh) - len(good),
        len(fresh),
        float(np.mean(shares)) if shares else None,
        way == NORM and bool(twins) and all(clipped == other for clipped, other in twins),
    )


def works(raced: Raced) -> list[bool]:
    """Whether all screening runs of a configuration of the clipped way end near the best.

    That is within two margins of the better way's loss, as for the usable range; none does where
    neither way has a loss.
    """
    shares = working(raced.ways[NORM], raced.ways[NONE], raced.losses, raced.margin or math.inf)
    return [False] * raced.size.configurations if shares is None else (shares[0] == 1).tolist()


def flat(raced: Raced) -> Flat | None:
    """The thresholds that work; None: there is no margin, or neither way has a loss."""
    if raced.margin is None or set(raced.losses) == {None}:
        return None
    thresholds = {r["configuration"]: r["threshold"] for r in raced.rows if r["way"] == NORM}
    near = works(raced)
    own = [thresholds[i] for i, one in enumerate(near) if one]
    return Flat(len(own), len(near), min(own, default=math.nan), max(own, default=math.nan))


def at_an_edge(raced: Raced) -> list[str]:
    """Rates that lie at an end of what was tried: it may be better beyond."""
    found = []
    for way in (NORM, NONE):
        best = choice(raced, way)
        place = raced.asked.space.coordinates["lr"].place(best.lr)
        if best.loss is None:
            continue
        if place < EDGE or place > 1 - EDGE:
            end = "low" if place < EDGE else "high"
            lies = f"the best rate of {way} lies at the {end} end of --lr"
            found.append(f"{lies}: widen it, which takes fresh runs")
    return found


def surer(raced: Raced) -> Iterator[Surer]:
    """The larger sizes: half the interval shrinks with the square root of configurations.

    That is about right on simulated surfaces (0.45 of it from small to full, here 0.5); not from a
    size below small, whose intervals are too few runs' own.
    """
    loss = raced.verdict.loss
    here = raced.size.configurations
    for name in larger(raced.size_name):
        size = SIZES[name]
        runs = runs_of(size, raced.early)[1]
        half = None
        if loss is not None and here >= SIZES["small"].configurations:
            half = (loss.high - loss.low) / 2 * math.sqrt(here / size.configurations)
        equal = two = None
        if raced.margin is not None and raced.has_word and size.decides:
            try:
                noise = noise_of(raced.ways[NORM], raced.ways[NONE], raced.margin)
                chances = calibrate(size, noise, 1, STUDIES).first
                two = chances[TWO]["harms"]
                equal = chances[EQUAL]["no matter"] if raced.early else None
            except ValueError:  # no spread to plan with
                pass
        yield Surer(name, runs, runs * raced.minutes_a_run, half, equal, two)
