"""What was measured of a study's answer, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report.tables import effect, number, p_value, percent, points
from cliplab.lab.report.words import REASONS
from cliplab.lab.stats.paired import Estimate

__all__ = ["measured_lines", "of_each", "why"]


def why(verdict: Verdict) -> str:
    """The reason of an outcome in a sentence; nothing where there is none."""
    return REASONS.get(verdict.reason, "")


def of_each(verdict: Verdict) -> tuple[str, str]:
    """Each way's own loss, and failures: ``1.72 (norm 1), 2.01 (none)``; nothing without them."""
    levels = verdict.levels or {}
    names = (verdict.first, verdict.rival)
    losses = zip(names, levels.get("loss", ()), strict=False)
    counts = zip(names, levels.get("failures", ()), strict=False)
    return (
        ", ".join(f"{number(loss)} ({name})" for name, loss in losses),
        ", ".join(f"{failed} of {runs} ({name})" for name, (failed, runs, _) in counts),
    )


def measured_lines(verdict: Verdict) -> Iterator[str]:
    """What was measured, a sentence an estimand: loss and failures come first."""
    if verdict.outcome is Outcome.NOT_RUN:
        yield f"Not run: {verdict.note}."
        return
    levels = verdict.levels or {}
    yield _loss(verdict, levels)
    yield _failures(verdict, levels)
    if verdict.p_holm is not None:
        yield f"After Holm's correction p {_is(verdict.p_holm)}."
    if verdict.control is not None:
        yield _control(verdict, verdict.control)
    if verdict.usable is not None:
        yield _usable(verdict, levels)
    if levels.get("best_of"):
        yield _best_of(verdict, levels["best_of"])
    if verdict.note:
        yield f"Note: {verdict.note}."


def _loss(verdict: Verdict, levels: Mapping[str, Any]) -> str:
    if verdict.loss is None:
        return "Loss: cannot be compared, as a way hardly ever succeeds."
    sd = f"; standard deviation from run to run {number(levels['sd'])}" if levels["sd"] else ""
    return (
        f"Loss: {of_each(verdict)[0]}; difference {effect(verdict.loss, verdict.unit)} "
        f"({number(verdict.margin)} would matter; p {_is(verdict.loss.p)}{sd})."
    )


def _failures(verdict: Verdict, levels: Mapping[str, Any]) -> str:
    """Counts, of each pick too where there are any, and the difference of the shares."""
    assert verdict.failures is not None
    told = []
    for name, counts in zip((verdict.first, verdict.rival), levels["failures"], strict=True):
        failed, runs, picks = counts
        by_pick = f"; {', '.join(map(str, picks))} by pick" if failed else ""
        told.append(f"{failed} of {runs} ({name}{by_pick})")
    without = ""
    if verdict.failures.effect:
        left = f"{100 * levels['left_out']:+.1f}".replace("-", "−")
        without = f"; without a pick of each {left} points"
    return (
        f"Failed runs of the best configurations: {', '.join(told)}; difference of shares "
        f"{points(verdict.failures)} ({100 * (verdict.failure_margin or 0):g} points would "
        f"matter; p {_is(verdict.failures.p)}{without})."
    )


def _control(verdict: Verdict, control: Estimate) -> str:
    """Whether it passes is said where that was asked: of ways that seem to be equal."""
    text = (
        f"Control: the rival with a handicap ({verdict.handicap}) is behind {verdict.first} by "
        f"{effect(control, verdict.unit)}"
    )
    if verdict.outcome is Outcome.NO_MATTER:
        return f"{text}: told apart, as it should be."
    if verdict.reason == "control":
        return f"{text}: the interval should lie above 0 and meet 1 to 3 margins."
    return f"{text}."


def _usable(verdict: Verdict, levels: Mapping[str, Any]) -> str:
    first, rival = levels["usable"]
    if levels["decades"]:
        ways = f"{number(first)} ({verdict.first}), {number(rival)} ({verdict.rival}) decades"
        return f"Usable range of the learning rate: {ways}; difference {effect(verdict.usable)}."
    ways = f"{percent(first)} ({verdict.first}), {percent(rival)} ({verdict.rival})"
    return f"Usable share of all configurations: {ways}; difference {points(verdict.usable)}."


def _best_of(verdict: Verdict, curves: Sequence[Sequence[float]]) -> str:
    """What trying more configurations buys: a description, of the screening runs alone."""
    most = len(curves[0])
    tried = sorted({1, max(2, most // 4), most})
    ways = zip((verdict.first, verdict.rival), curves, strict=True)
    told = [f"{', '.join(number(c[k - 1]) for k in tried)} ({name})" for name, c in ways]
    return f"Best of {', '.join(map(str, tried))} configurations tried: {'; '.join(told)}."


def _is(p: float) -> str:
    told = p_value(p)
    return told if told.startswith("<") else f"= {told}"
