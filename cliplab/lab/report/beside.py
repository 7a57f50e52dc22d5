"""What is published beside a collection's notebooks, for the report of a run that decides nothing.

A published verdict is told first, and what the run measured beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cliplab.lab.claims.ledger import Ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.notebook.registrations import records_of
from cliplab.lab.report.published import load_published, superseded
from cliplab.lab.report.twelve import Answer, read_answers
from cliplab.lab.runs.register import PRESETS

__all__ = ["Beside", "Told", "read_beside", "told"]


@dataclass(frozen=True)
class Beside:
    """The answers of a collection; and the verdicts by claim, the pictures by notebook."""

    answers: Sequence[Answer] = ()
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """One claim as it is told: a verdict, and beside a published one that of this run."""

    verdict: Verdict
    here: Verdict | None = None


def read_beside(notebooks: Path, ledger: Ledger, preset: str) -> Beside:
    """What is published; of a run whose verdicts are to be published the answers alone.

    ``ValueError`` for a record that is damaged.
    """
    records = records_of(notebooks)
    names = {claim.notebook for claim in ledger.claims.values()}
    if not any((records / f"{name}.json").exists() for name in names):
        return Beside()
    published = load_published(records.parent, ledger)
    answers, _ = read_answers(published, ledger, records.parent)
    if preset in PRESETS:
        return Beside(answers)
    silent = (Outcome.NOT_RUN, Outcome.WITHDRAWN)
    verdicts = {
        v.id: v
        for v in published.all_verdicts()
        if v.outcome not in silent and not superseded(published.about.get(v.notebook))
    }
    pictures = {
        path.stem: path
        for path in records.glob("*.png")
        if not superseded(published.about.get(path.stem))
    }
    return Beside(answers, verdicts, pictures)


def told(verdicts: Sequence[Verdict], published: Mapping[str, Verdict]) -> Iterator[Told]:
    """The claims that are not withdrawn, in their order."""
    for verdict in verdicts:
        if verdict.outcome is Outcome.WITHDRAWN:
            continue
        first = published.get(verdict.id)
        yield Told(first, verdict) if first else Told(verdict)
