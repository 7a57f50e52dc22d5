"""What an answer may rest on, by name: the ledger's claims, and measures over all tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from cliplab.lab.claims.ledger import Ledger
from cliplab.lab.claims.verdict import DECIDED, Outcome, Verdict
from cliplab.lab.report.measured import of_each
from cliplab.lab.report.published import Published, holds, superseded
from cliplab.lab.report.tables import number, points, share
from cliplab.lab.runs.csvrows import read_rows
from cliplab.lab.stats.paired import Estimate
from cliplab.lab.stats.ranks import rank_correlation

__all__ = ["SUPERSEDED", "UNMEASURED", "Backing", "backings"]

SUPERSEDED, UNMEASURED = "superseded", "not measured"  # grades of what does not count
MARGINS = 0.1  # what matters in margins and decades
ACROSS = "16_across_models"  # the notebook whose rows are all tasks
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Backing:
    """One thing of record: what came out of it, how sure that is, and its numbers as text.

    ``outcome`` is a comparison's or an identity's word. What has no verdict goes by its interval:
    ``above``, ``below`` or ``across`` 0; a share is ``shown``. A number that there is not is empty.
    """

    id: str
    notebook: str
    outcome: str
    grade: str
    told: Mapping[str, str]


def backings(published: Published, ledger: Ledger, root: Path) -> dict[str, Backing]:
    """All of them by id: those of the ledger, then those over all tasks, which 16 publishes."""
    every = [_claimed(v, published, ledger) for v in published.all_verdicts()]
    every += _over_tasks(root / "records" / f"{ACROSS}.csv")
    return {
        one.id: replace(one, grade=SUPERSEDED)
        if one.grade != UNMEASURED and superseded(published.about.get(one.notebook))
        else one
        for one in every
    }


def _claimed(verdict: Verdict, published: Published, ledger: Ledger) -> Backing:
    is_share, estimate = verdict.kind == "share", verdict.loss
    told = {
        "effect": share(estimate)
        if is_share and estimate
        else _matters(_rounded(estimate, verdict.unit, verdict.margin), verdict.margin),
        "margins": _in_margins(verdict),
        "failed": of_each(verdict)[1],
        "failures": _matters(points(verdict.failures), 100 * (verdict.failure_margin or 0))
        if verdict.failures
        else "",
        "usable": _rounded(verdict.usable, verdict.usable_unit, MARGINS),
        "margin": f"{number(verdict.margin)} {verdict.unit}" if verdict.margin else "",
        "note": verdict.note if verdict.outcome is not Outcome.NOT_RUN else "",
        "counter": ledger.claims[verdict.id].counter,
    }
    outcome = str(verdict.outcome)
    if verdict.outcome is Outcome.SHOWN and not is_share:
        outcome = _side(estimate)
    stands = not superseded(published.about_again.get(verdict.notebook))
    again = holds(verdict, published.again.get(verdict.id)) if stands else ""
    return Backing(verdict.id, verdict.notebook, outcome, _grade(verdict, again), told)


def _grade(verdict: Verdict, again: str) -> str:
    """How sure: a word that a list of answers can be read by."""
    if verdict.outcome is Outcome.NOT_RUN:
        return UNMEASURED
    if verdict.kind != "comparison":
        return "identity" if verdict.kind == "identity" else "description"
    if verdict.outcome not in DECIDED:
        return "undecided"
    if again.startswith("does not hold"):
        return "not replicated"
    return "replicated" if again.startswith("holds") else "decided"


def _side(estimate: Estimate | None) -> str:
    if estimate is not None and estimate.low > 0:
        return "above"
    return "below" if estimate is not None and estimate.high < 0 else "across"


def _in_margins(verdict: Verdict) -> str:
    if verdict.loss is None or not verdict.margin:
        return ""
    ends = (verdict.loss.effect, verdict.loss.low, verdict.loss.high)
    effect, low, high = (end / verdict.margin for end in ends)
    scaled = replace(verdict.loss, effect=effect, low=low, high=high)
    return _rounded(scaled, "margins", MARGINS)


def _rounded(estimate: Estimate | None, unit: str, matters: float | None = None) -> str:
    """With two digits of what matters (a margin; else the largest number that is told)."""
    if estimate is None:
        return ""
    ends = (estimate.effect, estimate.low, estimate.high)
    largest = max((abs(end) for end in ends if math.isfinite(end)), default=0.0)
    digits = max(0, 1 - math.floor(math.log10(matters or largest or 1.0)))
    effect, *others = (_signed(end, digits) for end in ends)
    interval = f" [{', '.join(others)}]" if math.isfinite(ends[2] - ends[1]) else ""
    return f"{effect}{interval} {unit}".rstrip()


def _matters(told: str, margin: float | None) -> str:
    """A difference beside what would matter, without which its outcome cannot be told."""
    return f"{told} ({margin:g} would matter)" if told and margin else told


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def _over_tasks(path: Path) -> Iterator[Backing]:
    """What tells where clipping pays, as rank correlations; then spans over tasks."""
    rows = read_rows(path.read_text(encoding="utf-8")) if path.exists() else []
    by_arm = {row["arm"]: row for row in rows}
    clipped = [row for row in by_arm.values() if row["stands_for_clipping"]]
    both = [(none, own) for own in clipped if (none := by_arm.get(f"{own['task']}: none"))]
    for name, measure in _RANKED.items():
        yield _ranked(name, both, measure)
    for name, (unit, measure) in _SPANS.items():
        yield _span(name, unit, [value for pair in both if (value := measure(*pair)) is not None])


Pairs = Sequence[tuple[Row, Row]]
_RANKED: dict[str, Callable[[Row, Row], float | None]] = {  # of the unclipped and the clipped way
    "rank_usable": lambda none, own: none["usable"],
    "rank_peak": lambda none, own: none["norm_peak"],
    "rank_failures": lambda none, own: none["screened_failures"],
    "rank_frequency": lambda none, own: own["clip_fraction"],
}
_SPANS: dict[str, tuple[str, Callable[[Row, Row], float | None]]] = {
    "gain": ("margins", lambda none, own: own["gain"] and own["gain"] / own["margin"]),
    "wider": ("decades", lambda none, own: own["wider"]),
    "regret_none": ("margins", lambda none, own: none["regret"]),
    "regret_recipe": ("margins", lambda none, own: own["regret_recipe"]),
    "regret_quarter": ("margins", lambda none, own: own["regret_0.25"]),
    "regret_one": ("margins", lambda none, own: own["regret_1"]),
    "regret_five": ("margins", lambda none, own: own["regret_5"]),
}


def _ranked(name: str, both: Pairs, measure: Callable[[Row, Row], float | None]) -> Backing:
    """Against the gain in margins, over the tasks that have both."""
    pairs = [
        (value, own["gain"] / own["margin"])
        for none, own in both
        if (value := measure(none, own)) is not None and own["gain"] is not None
    ]
    found = rank_correlation([x for x, _ in pairs], [y for _, y in pairs])
    if math.isnan(found.rho):
        return _missing(name)
    estimate = Estimate(found.rho, found.low, found.high, 1.0, found.n)
    told = {"effect": _rounded(estimate, ""), "n": number(found.n)}
    return Backing(name, ACROSS, _side(estimate), "description", told)


def _span(name: str, unit: str, values: Sequence[float]) -> Backing:
    """The median over tasks, and between which ends all of them lie."""
    if not values:
        return _missing(name)
    ends = Estimate(median(values), min(values), max(values), 1.0, len(values))
    told = {"effect": _rounded(ends, unit, MARGINS), "n": number(len(values))}
    return Backing(name, ACROSS, _side(ends), "description", told)


def _missing(name: str) -> Backing:
    return Backing(name, ACROSS, str(Outcome.NOT_RUN), UNMEASURED, {})
