"""The answers as a person reads them: RESULTS.md, and the cell that opens each notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cliplab.lab.claims.calibration import TRUTHS
from cliplab.lab.claims.ledger import STUDIED, Ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report.answered import answers_list, notebooks_table
from cliplab.lab.report.cost import cost
from cliplab.lab.report.markdown import link, markdown, short_links
from cliplab.lab.report.measured import measured_lines, why
from cliplab.lab.report.published import Published, deviations, holds
from cliplab.lab.report.remeasured import remeasured
from cliplab.lab.report.tables import effect, number, percent, points, share
from cliplab.lab.report.twelve import Answer
from cliplab.lab.report.words import HOW_SURE, linked

__all__ = ["found_cell", "results_page"]

_INTRO = """\
Each question was put to two ways of training, each tuned alike: both draw their configurations
from one registered space, and the answer is about the first-named way. **Helps** and **harms** mean
by more than would change a decision; **no matter** means by less, in loss and in failures, and a
handicapped rival was told apart; **unclear** says why. How it is measured, and how often the rule
errs: [docs/study.md](docs/study.md); what the words mean: [docs/glossary.md](docs/glossary.md).
Rows and choices: [records](records); with which code they were measured:
[docs/records.md](docs/records.md).

Differences above 0 speak for the first-named way; brackets are 90 % intervals. Losses are those of
the best of k configurations, given that the run succeeds. Holm's correction counts all {family}
comparisons that are planned.
"""


def results_page(published: Published, ledger: Ledger, twelve: Sequence[Answer] = ()) -> str:
    """RESULTS.md, without its first lines."""
    sections = [
        ("Twelve answers", f"{HOW_SURE}\n\n{answers_list(twelve)}" if twelve else ""),
        ("By notebook", notebooks_table(published) or "None yet."),
        ("Comparisons", _overview(published, ledger)),
        ("Shares", _shares(published, ledger)),
        ("Identities", _identities(published)),
        ("Demonstrations", _demonstrations(published, ledger)),
        ("Withdrawn, being redone", _withdrawn(published)),
        *_answers(published, ledger),
        ("A way against itself", _each(published, ledger, "a/a")),
        ("Estimates", _each(published, ledger, "estimate")),
        ("Measured again", remeasured(published)),
        ("What it cost", cost(published)),
    ]
    body = "\n".join(f"## {title}\n\n{text}\n" for title, text in sections if text)
    return f"# Results\n\n{_INTRO.format(family=ledger.family)}\n{body}"


def _of_kind(published: Published, kind: str) -> Iterator[Verdict]:
    return (v for v in published.all_verdicts() if v.kind == kind)


def _overview(published: Published, ledger: Ledger) -> str:
    return markdown(
        {
            "Question": v.statement,
            "Answer": f"**{v.verdict}**"
            + (", deviates" if _deviates(published, ledger, v) else ""),
            linked("replicated", text="Replicated"): holds(v, published.again.get(v.id)) or "–",
            linked("loss given success", text="Loss"): effect(v.loss, v.unit),
            linked("failures", text="Failures"): points(v.failures),
            "Notebook": short_links([v.notebook]),
        }
        for v in _of_kind(published, "comparison")
    )


def _deviates(published: Published, ledger: Ledger, verdict: Verdict) -> bool:
    return verdict.outcome is not Outcome.NOT_RUN and bool(deviations(published, ledger, verdict))


def _answers(published: Published, ledger: Ledger) -> Iterator[tuple[str, str]]:
    for notebook, verdicts in published.verdicts.items():
        own = [v for v in verdicts if v.kind == "comparison"]
        if own:
            title = published.about.get(notebook, {}).get("question") or notebook
            yield title, "\n".join(_answer(published, ledger, v) for v in own)


def _answer(published: Published, ledger: Ledger, verdict: Verdict) -> str:
    about = published.about.get(verdict.notebook, {})
    if verdict.outcome is Outcome.NOT_RUN and "registration" not in about:
        known = "Registered" if verdict.notebook in published.registrations else "Not registered"
        measured = [f"{known}, and not measured yet."]
    else:
        measured = [*measured_lines(verdict)]
    lines = [*measured, *_around(published, ledger, verdict)]
    reason = f": {why(verdict)}" if why(verdict) else ""
    compared = f"{verdict.first} against {verdict.rival}, `{verdict.id}`"
    head = f"### {verdict.statement}\n\n**{_said(verdict)}**{reason} ({compared}).\n\n"
    return head + "\n".join(f"* {line}" for line in lines) + "\n"


def _said(verdict: Verdict) -> str:
    return verdict.verdict[:1].upper() + verdict.verdict[1:]


def _around(published: Published, ledger: Ledger, verdict: Verdict) -> Iterator[str]:
    """What an answer stands beside: the literature, its limits, its plan, its registration."""
    claim = ledger.claims[verdict.id]
    if claim.margin_reason and verdict.outcome is not Outcome.NOT_RUN:
        yield f"Why this margin: {claim.margin_reason}"
    if claim.literature:
        yield f"The literature: {claim.literature} ({claim.source})."
    if claim.counter:
        yield f"Not to be read beyond: {claim.counter}"
    registration = published.registrations.get(verdict.notebook)
    if registration and verdict.id in registration["power"]:
        chances = planned(registration["power"][verdict.id])
        yield f"Planned before the run, by what is true: {chances}."
    if verdict.outcome is not Outcome.NOT_RUN:
        found = deviations(published, ledger, verdict)
        yield from (f"**Deviates from what was registered**: {difference}." for difference in found)
    if again := published.again.get(verdict.id):
        yield f"Replicated on other draws and seeds: {holds(verdict, again)}; {again.measured()}."


def planned(power: Mapping[str, Any]) -> str:
    """The chances of a word, by what is true: ``equal: no matter 80 %, one margin: ...``."""
    order = {truth: place for place, truth in enumerate(TRUTHS)}
    rows = sorted(power.items(), key=lambda row: order.get(row[0].partition(":")[0], len(order)))
    return ", ".join(f"{truth} {percent(chance)}" for truth, chance in rows)


def _each(published: Published, ledger: Ledger, kind: str) -> str:
    """What was asked and is no part of the family, one answer below the other."""
    own = _of_kind(published, kind)
    return "\n".join(_answer(published, ledger, verdict) for verdict in own)


def _demonstrations(published: Published, ledger: Ledger) -> str:
    return markdown(
        {
            "At a setting chosen to show it": v.statement,
            "Difference [90 % interval]": effect(v.loss, v.unit),
            "Seeds": number(v.loss.n) if v.loss else "–",
            "Note": v.note or "–",
            "Why this setting": ledger.claims[v.id].chosen,
            "The literature": f"{ledger.claims[v.id].literature} ({ledger.claims[v.id].source})",
            "Notebook": short_links([v.notebook]),
        }
        for v in _of_kind(published, "demonstration")
    )


def _shares(published: Published, ledger: Ledger) -> str:
    return markdown(
        {
            "How often": v.statement,
            "Share [90 % interval]": share(v.loss) if v.loss else "–",
            "Of": v.note if v.loss else "not measured yet",
            "What was counted": ledger.claims[v.id].chosen,
            "The literature": f"{ledger.claims[v.id].literature} ({ledger.claims[v.id].source})",
            "Notebook": short_links([v.notebook]),
        }
        for v in _of_kind(published, "share")
    )


def _identities(published: Published) -> str:
    return markdown(
        {
            "True by algebra, compared bit for bit": v.statement,
            "Here": f"{v.verdict}, {v.note}",
            "Notebook": short_links([v.notebook]),
        }
        for v in _of_kind(published, "identity")
    )


def _withdrawn(published: Published) -> str:
    return "\n".join(
        f"* {link(v.notebook)}, {v.id}: {v.statement}" for v in _of_kind(published, "withdrawn")
    )


def found_cell(verdicts: Sequence[Verdict]) -> str:
    """The cell that opens a notebook: what its published run found."""
    shown = [v for v in verdicts if v.kind != "withdrawn" and v.outcome is not Outcome.NOT_RUN]
    if not shown:
        return "*Not measured yet.*"
    head = (
        "**What was found** (the published run; differences above 0 speak for the first-named way, "
        "brackets are 90 % intervals)\n\n"
    )
    return head + "\n".join(_found(shown))


def _found(verdicts: Iterable[Verdict]) -> Iterator[str]:
    for v in verdicts:
        measured = " ".join(list(measured_lines(v))[:2]) if v.kind in STUDIED else ""
        if v.kind == "estimate":
            yield f"* {v.statement} {measured} (an estimate: no verdict)"
        elif v.kind in STUDIED:
            reason = f" ({why(v)})" if why(v) else ""
            yield f"* {v.statement} **{_said(v)}**{reason}. {measured}"
        elif v.kind == "demonstration" and v.loss:
            more = f" {v.note}." if v.note else ""
            told = f"{effect(v.loss, v.unit)}, {v.loss.n} seeds"
            yield f"* {v.statement}: {told} (a demonstration: its setting was chosen).{more}"
        elif v.kind == "share":
            told = f"{share(v.loss)}, {v.note}" if v.loss else v.note
            yield f"* {v.statement}: {told}."
        else:
            yield f"* {v.statement}: {v.verdict}, {v.note} (an identity)."
