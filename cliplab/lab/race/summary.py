"""A race in sentences, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from textwrap import fill, wrap
from typing import Any, NamedTuple

from cliplab.lab.claims.verdict import Outcome
from cliplab.lab.race.found import ERROR, STUDIES, Surer, at_an_edge, choice, flat, surer
from cliplab.lab.race.race import NONE, NORM, UNTRAINED, Raced
from cliplab.lab.race.size import enough
from cliplab.lab.report.measured import of_each, why
from cliplab.lab.report.tables import duration, effect, number, percent, points
from cliplab.lab.stats.paired import Estimate

__all__ = ["Line", "Summary"]

WIDTH = 96  # of what is printed
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
        if not self.raced.learned:
            return "Nothing was learned, every run failed"
        small = " (small)" if self.raced.size.runs[1] == 0 else ""
        return FREE[self.verdict.outcome] + small

    @cached_property
    def why(self) -> str:
        """The reason of the word, and what a small race can say."""
        if not self.raced.learned:
            return nothing_learned(self.raced)
        said = []
        if self.raced.asked.margin is None:
            said.append(
                "no margin was given, the smallest difference that would change what you do, so "
                "there are numbers and no word. With --margin there is one, of fresh draws and "
                "seeds: these runs were looked at"
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
            gain = by(verdict.loss, "better", "worse")
            yield Line("Loss", f"{losses}; clipping is {gain} ({matter}{sd})")
        assert verdict.failures is not None
        fewer = by(verdict.failures, "fewer", "more", points)
        yield Line(
            "Failures",
            f"{failed} of the best configurations' runs; {fewer} with clipping "
            f"({100 * (verdict.failure_margin or 0):g} would matter)",
        )
        if verdict.usable is not None and self.raced.margin is not None:
            first, rival = levels["usable"]
            behind = f"2 {self.unit}s ({number(2 * self.raced.margin)})"
            yield Line(
                "Usable range",
                f"{number(first)} decades of the learning rate (norm), {number(rival)} (none), "
                f"{by(verdict.usable, 'wider', 'narrower')} with clipping: where runs end within "
                f"{behind} of the best",
            )
        if verdict.control is not None:
            text = by(verdict.control, "behind norm", "ahead of norm")
            yield Line("Control", f"none at its earlier checkpoint is {text}")

    @cached_property
    def recommended(self) -> list[Line]:
        """What to train with; nothing where nothing was learned."""
        if not self.raced.learned:
            return []
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
                f"with {near.works} of {near.drawn} thresholds drawn, each at a rate of its own, "
                f"all screening runs end within 2 {self.unit}s of the best"
            )
            if near.works:
                text += f": {number(near.low)}"
            if near.works > 1:
                text += f" to {number(near.high)}"
            found.append(Line("How flat", text))
        return found

    @cached_property
    def no_control(self) -> str:
        """What no minutes help with; nothing where a control is there, or not needed any more."""
        decided = self.raced.size.decides and self.verdict.outcome in (Outcome.HELPS, Outcome.HARMS)
        if self.raced.early or decided or not self.raced.learned:
            return ""
        return (
            "return early_val_loss and early_test_loss, the scores of an earlier checkpoint: no "
            "minutes lead to “no matter” without this control. It is other code, and takes all "
            "runs again"
        )

    @cached_property
    def sizes(self) -> list[Surer]:
        """The larger races; none where nothing was learned."""
        return list(surer(self.raced)) if self.raced.learned else []

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
            more = ": widen what is tried, which takes fresh runs"
            said += [self.verdict.note + more] if self.verdict.note else []
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
        return [*said, *asked_before(raced)]

    def text(self) -> str:
        """All of it for a terminal."""
        lines = [*self.measured, *self.recommended]
        lines += [Line("Surer", self.no_control)] if self.no_control else []
        lines += [Line("Surer", _larger(size)) for size in self.sizes]
        lines += [Line("", self.chances)] if self.chances else []
        lines += [Line("Note", note) for note in self.notes]
        head = f"{self.headline}: {self.why}" if self.why else self.headline
        told = [_wrapped(f"{line.name + ':' * bool(line.name):15}{line.text}") for line in lines]
        return "\n".join([*wrap(head, WIDTH), "", *told])


def by(found: Estimate, more: str, less: str, told: Callable[[Estimate], str] = effect) -> str:
    """A difference in words, above 0 whichever way it is, and its interval as many.

    >>> by(Estimate(-0.25, -0.5, 0.125, 0.1, 8), "wider", "narrower")
    'narrower by 0.250 [−0.125, +0.500]'
    >>> by(Estimate(0.0, -0.1, 0.2, 1.0, 8), "fewer", "more", points)
    'neither fewer nor more (0.0 [−10.0, +20.0] points, above 0 fewer)'
    """
    if found.effect == 0:
        return f"neither {more} nor {less} ({told(found)}, above 0 {more})"
    if found.effect < 0:
        return by(
            replace(found, effect=-found.effect, low=-found.high, high=-found.low), less, more, told
        )
    return f"{more} by {told(found).removeprefix('+')}"


def nothing_learned(raced: Raced) -> str:
    """How every run failed, and where that may come from."""
    diverged = sum(row["diverged"] for row in raced.rows)
    options = "--chance and --lr" if raced.asked.lost is None else "--chance, --lost and --lr"
    return (
        f"{diverged} of {len(raced.rows)} runs diverged, {len(raced.rows) - diverged} were no "
        f"better than {number(raced.beaten_from)}: check the function, {options}"
    )


def asked_before(raced: Raced) -> Iterator[str]:
    """What else was asked in the folder, and what is not known of it."""
    if raced.others:
        other = "; ".join(differing(one, raced.asked.decides) for one in raced.others)
        yield (
            f"also asked in this folder, each with fresh draws and seeds: {other}. The best of "
            "several answers is luck, too"
        )
    if raced.judged:
        yield (
            f"judged before with other --minutes ({', '.join(raced.judged)}): a race that grows "
            "until its word pleases tests nothing"
        )
    if raced.has_word:
        yield (
            "what decides was fixed before these runs, as race.json tells; what was tried in "
            "another folder, or by hand, it cannot know"
        )


def differing(given: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What another question has otherwise, as it is typed.

    >>> differing({"margin": None, "lr": [0.1, 1]}, {"margin": 0.2, "lr": [0.01, 1]})
    'no --margin, --lr 0.1:1'
    """
    told = []
    for name, value in given.items():
        text = ":".join(f"{x:g}" for x in (value if isinstance(value, list) else [value or 0]))
        if value != own[name]:
            told.append(f"no --{name}" if value is None else f"--{name} {text}")
    return ", ".join(told)


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
    return f"--minutes {enough(size.minutes)}: {runs}{half}{chance}"
