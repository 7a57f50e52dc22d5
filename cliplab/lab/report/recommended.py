"""What follows from the answers for a user, by model and optimizer; each cell names its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cliplab.lab.across.placing import MODELS, OPTIMIZERS, OTHER, model_of, optimizer_of
from cliplab.lab.across.tasks import NONE
from cliplab.lab.claims.ledger import Ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report.markdown import markdown
from cliplab.lab.report.published import Published, superseded
from cliplab.lab.report.twelve import overall

__all__ = ["recommendations"]

_INTRO = """\
**What to do, by model and optimizer.** Generated from the answers in [RESULTS.md](../RESULTS.md); a
cell without an answer is empty. *Clip*: it helps in one comparison at least and harms in none.
*Do not*: the reverse. *Either way*: it mattered in none that was decided. *It depends*: it helps
and harms. *Not known*: none was decided.
"""
_ALL = "Clip the norm at all?"
_HOW = "Which way of clipping? (first-named way, rival)"
WORDS = {
    "mixed": "It depends",
    Outcome.HELPS: "Clip",
    Outcome.HARMS: "Do not",
    Outcome.NO_MATTER: "Either way",
    Outcome.UNCLEAR: "Not known",
}
SAID = (Outcome.HELPS, Outcome.HARMS, Outcome.NO_MATTER, Outcome.UNCLEAR)


def recommendations(published: Published, ledger: Ledger) -> str:
    """Two tables: clip at all, and how."""
    asked = [claim.text for claim in ledger.claims.values() if claim.kind == "comparison"]
    rows = [model for model in [*MODELS, OTHER] if model in map(model_of, asked)]
    columns = [one for one in [*OPTIMIZERS, OTHER] if one in map(optimizer_of, asked)]
    answers = [
        v
        for v in published.all_verdicts()
        if v.kind == "comparison"
        and v.outcome in SAID
        and not superseded(published.about.get(v.notebook))
    ]
    at_all = [v for v in answers if v.rival == NONE]
    how = [v for v in answers if v.rival != NONE]

    def table(told: Sequence[Verdict], say: Callable[[Sequence[Verdict]], str]) -> str:
        def cell(model: str, optimizer: str) -> str:
            place = (model, optimizer)
            own = [v for v in told if (model_of(v.statement), optimizer_of(v.statement)) == place]
            return say(own) if own else ""

        return markdown(
            {"": row} | {column: cell(row, column) for column in columns} for row in rows
        )

    return (
        f"{_INTRO}\n*{_ALL}*\n\n{table(at_all, _clip_at_all)}\n\n*{_HOW}*\n\n{table(how, _which)}\n"
    )


def _clip_at_all(verdicts: Sequence[Verdict]) -> str:
    """A word, and the answers that it rests on."""
    found = {v.outcome for v in verdicts}
    word = WORDS[overall(found)]
    told = [
        f"{one} {_linked(v for v in verdicts if v.outcome is one)}" for one in SAID if one in found
    ]
    return f"**{word}**: {'; '.join(told)}"


def _which(verdicts: Sequence[Verdict]) -> str:
    return "; ".join(f"{v.first}, {v.rival}: **{v.outcome}** {_linked([v])}" for v in verdicts)


def _linked(verdicts: Iterable[Verdict]) -> str:
    return ", ".join(f"[`{v.id}`]({v.notebook}.ipynb)" for v in verdicts)
