"""A race in sentences, for the terminal and for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from textwrap import fill, wrap
from typing import NamedTuple

from cliplab.lab.claims.verdict import Outcome
from cliplab.lab.race.found import ERROR, STUDIES, Surer, at_an_edge, choice, flat, surer
from cliplab.lab.race.race import NONE, NORM, UNTRAINED, Raced
from cliplab.lab.report.measured import of_each, why
from cliplab.lab.report.tables import duration, effect, number, percent, points

__all__ = ["Line", "Summary"]

WIDTH = 96  # of what is printed
APART = 10_000  # from one first seed to another, more than a race has
FREE = {
    Outcome.HELPS: "Clipping the norm helps",
    Outcome.HARMS: "Clipping the norm harms",
    Outcome.NO_MATTER: "Clipping the norm does not matter",
    Outcome.UNCLEAR: "Unclear whether clipping the norm helps",
    Outcome.SHOWN: "Measured, without a word",
}


class Line(NamedTuple):
    """A sentence under its name."""

    name: str
    text: str


class Summary:
    """What is said of a race."""

    def __init__(self, raced: Raced) -> None:
        self.raced, self.verdict = raced, raced.verdict
        self.clipped, self.unclipped = choice(raced, NORM), choice(raced, NONE)

    @cached_property
    def headline(self) -> str:
        """The word, and what limits it."""
        small = " (small)" if self.raced.size.runs[1] == 0 else ""
        return FREE[self.verdict.outcome] + small

    @cached_property
    def why(self) -> str:
        """The reason of the word, and what a small race can say."""
        said = []
        if self.raced.asked.margin is None:
            said.append(
                "no margin was given, the smallest difference that would change what you do, so "
                f"there are numbers and no word. Choose one and take {self._other_draws}"
            )
        elif self.raced.seen:
            said.append(
                f"a margin of {self.raced.asked.margin:g} (with this --chance and --lost, or none) "
                f"was first given when {self.raced.seen} runs of these draws had been made: chosen "
                f"after a look at them, it describes and does not decide. Take {self._other_draws}"
            )
        elif reason := why(self.verdict):
            said.append(reason)
            if self.verdict.reason == "control":
                said[-1] = (
                    "equal as far as was seen, but nothing shows that this race could tell "
                    + (
                        "two margins apart: its control did not pass"
                        if self.raced.early
                        else "two margins apart: it has no control"
                    )
                )
        if not self.raced.size.decides:
            said.append("a race of this size decides nothing: read it as a first look")
        elif self.raced.size_name == "half" and self.raced.has_word:
            said.append("how often this size errs was not calibrated")
        return "; ".join(said)

    @property
    def _other_draws(self) -> str:
        return f"other draws: --first-seed {self.raced.asked.first_seed + APART}"

    @property
    def unit(self) -> str:
        """What differences are measured in; nothing without a margin and a spread."""
        if self.raced.margin is None:
            return ""
        return "standard deviation" if self.raced.asked.margin is None else "margin"

    @cached_property
    def measured(self) -> list[Line]:
        """The two primaries and the usable range."""
        return list(self._measured())

    def _measured(self) -> Iterator[Line]:
        verdict, levels = self.verdict, self.verdict.levels or {}
        losses, failed = of_each(verdict)
        given = self.raced.asked.margin is not None
        if verdict.loss is None:
            yield Line("Loss", "cannot be compared, as a way hardly ever succeeds")
        else:
            matter = f"{number(self.raced.margin)} would matter; " if given else ""
            sd = f"run-to-run sd {number(self.raced.spread)}" if self.raced.spread else "no spread"
            text = f"{losses}; clipping is better by {effect(verdict.loss)} ({matter}{sd})"
            yield Line("Loss", text)
        assert verdict.failures is not None
        yield Line(
            "Failures",
            f"{failed} of the best configurations' runs; fewer by {points(verdict.failures)} with "
            f"clipping ({100 * (verdict.failure_margin or 0):g} would matter)",
        )
        if verdict.usable is not None and self.raced.margin is not None:
            first, rival = levels["usable"]
            behind = f"2 {self.unit}s ({number(2 * self.raced.margin)})"
            yield Line(
                "Usable range",
                f"{number(first)} decades of the learning rate (norm), {number(rival)} (none), "
                f"wider by {effect(verdict.usable)}: where runs end within {behind} of the best",
            )
        if verdict.control is not None:
            text = f"none at its earlier checkpoint is behind norm by {effect(verdict.control)}"
            yield Line("Control", text)

    @cached_property
    def recommended(self) -> list[Line]:
        """What to train with."""
        c, n = self.clipped, self.unclipped
        share = "" if c.clipped is None else f"; it clips {percent(c.clipped)} of the updates"
        if c.idle:
            share = "; it never clips: where both ran, the losses are those without clipping"
        found = [
            Line(
                "With clipping",
                f"threshold {number(c.threshold)} at a learning rate of {number(c.lr)}: "
                f"loss {number(c.loss)}, {c.failed} of {c.runs} fresh runs failed{share}",
            ),
            Line(
                "Without",
                f"a learning rate of {number(n.lr)}: loss {number(n.loss)}, "
                f"{n.failed} of {n.runs} fresh runs failed",
            ),
        ]
        if (near := flat(self.raced)) is not None:
            text = (
                f"{near.works} of {near.drawn} thresholds drawn ended within a {self.unit} of the"
            )
            text += " best"
            if near.works:
                text += f", each at a rate of its own: {number(near.low)} to {number(near.high)}"
            found.append(Line("How flat", text))
        return found

    @cached_property
    def sizes(self) -> list[Surer]:
        """The larger races."""
        return list(surer(self.raced))

    @cached_property
    def chances(self) -> str:
        """How those of the larger races were had; nothing without any."""
        if not any(size.two is not None for size in self.sizes):
            return ""
        control = any(size.equal is not None for size in self.sizes)
        taken = ", with a control that is two margins worse" if control else ""
        return (
            f"chances are simulated at this race's noise, {STUDIES} studies a size{taken}: "
            f"standard error {100 * ERROR:.0f} points at most"
        )

    @cached_property
    def notes(self) -> list[str]:
        """What to know before believing it."""
        raced = self.raced
        said = [*raced.notes]
        if raced.size.decides:
            said += [f"{self.verdict.note}: widen what is tried"] if self.verdict.note else []
        else:
            said += at_an_edge(raced)
        if raced.one_loss:
            said.append(
                "rows have one loss: it chose configurations and scored them, on other seeds but "
                "the same data, which flatters both ways; return val_loss and test_loss"
            )
        if raced.asked.chance is None:
            said.append(
                f"a run failed if it diverged or was no better than {number(raced.chance)}, the "
                f"loss of a run at a rate of {UNTRAINED:g}: --chance says better what a predictor "
                "that knows nothing scores"
            )
        if not raced.early:
            said.append(
                "without the scores of an earlier checkpoint (early_val_loss, early_test_loss) "
                "there is no control, and “no matter” cannot be said"
            )
        return said

    def text(self) -> str:
        """All of it for a terminal."""
        lines = [*self.measured, *self.recommended]
        lines += [Line("Surer", _larger(size)) for size in self.sizes]
        lines += [Line("", self.chances)] if self.chances else []
        lines += [Line("Note", note) for note in self.notes]
        head = f"{self.headline}: {self.why}" if self.why else self.headline
        told = [_wrapped(f"{line.name + ':' * bool(line.name):15}{line.text}") for line in lines]
        return "\n".join([*wrap(head, WIDTH), "", *told])


def _wrapped(line: str) -> str:
    return fill(line, WIDTH, subsequent_indent=15 * " ")


def _larger(size: Surer) -> str:
    half = "" if size.half is None else f", loss ± {number(size.half)} (extrapolated)"
    chance = ""
    if size.two is not None:
        chance = f"; two margins would be seen in {percent(size.two)} of such races"
    if size.equal is not None:
        chance += f", equal ways called “no matter” in {percent(size.equal)}"
    runs = f"{size.name}, at most {size.runs} runs, {duration(60 * size.minutes)}"
    return f"--minutes {_up(size.minutes)}: {runs}{half}{chance}"


def _up(minutes: float) -> str:
    """Minutes that surely suffice.

    >>> _up(3.2), _up(50)
    ('3.3', '51')
    """
    return f"{math.ceil(10.2 * minutes) / 10:g}" if minutes < 10 else str(math.ceil(1.02 * minutes))
