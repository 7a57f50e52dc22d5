"""The answers as a person reads them: RESULTS.md, and the cell that opens each notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cliplab.lab.attest import carried
from cliplab.lab.claims.ledger import Claim, Ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report.markdown import link, markdown
from cliplab.lab.report.published import Published, deviations, holds
from cliplab.lab.report.tables import effect, interval, number, p_value

__all__ = ["found_cell", "results_page"]

_INTRO = """\
Each question was put to two ways of training, each tuned alike: both draw their configurations
from one registered space, and the answer is about the first-named way. **Helps** and **harms** mean
by more than would change a decision; **no matter** means by less, in loss and in failures, and a
handicapped rival was told apart; **unclear** says why. How it is measured, and how often the rule
errs: [docs/study.md](docs/study.md). Rows, choices and provenance: [records](records).
"""


def results_page(published: Published, ledger: Ledger) -> str:
    """RESULTS.md, without its first lines."""
    sections = {
        "Answers": _overview(published, ledger),
        **dict(_answers(published, ledger)),
        "A way against itself": _again(published),
        "Demonstrations": _demonstrations(published, ledger),
        "Identities": _identities(published),
        "Withdrawn, being redone": _withdrawn(published),
        "Records": _records(published),
    }
    body = "\n".join(f"## {title}\n\n{text or 'None yet.'}\n" for title, text in sections.items())
    return f"# Results\n\n{_INTRO}\n{body}"


def _of_kind(published: Published, kind: str) -> Iterator[Verdict]:
    return (v for v in published.all_verdicts() if v.kind == kind)


def _overview(published: Published, ledger: Ledger) -> str:
    return markdown(
        {
            "Question": v.statement,
            "Answer": f"**{v.verdict}**"
            + (", deviates" if _deviates(published, ledger, v) else ""),
            "Again": holds(v, published.again.get(v.id)) or "–",
            "Notebook": link(v.notebook),
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
    claim = ledger.claims[verdict.id]
    lines = [*measured_lines(verdict), *_around(published, ledger, verdict, claim)]
    head = f"### {verdict.statement}\n\n**{verdict.verdict[:1].upper()}{verdict.verdict[1:]}** "
    head += f"({verdict.first} against {verdict.rival}, `{verdict.id}`)\n\n"
    return head + "\n".join(f"* {line}" for line in lines) + "\n"


def measured_lines(verdict: Verdict) -> Iterator[str]:
    """What was measured of a comparison, a sentence an estimand."""
    if verdict.outcome is Outcome.NOT_RUN:
        yield f"Not run: {verdict.note}."
        return
    levels = verdict.levels or {}
    first, rival = verdict.first, verdict.rival
    margin = f"what would matter: {number(verdict.margin)}"
    if verdict.loss is None:
        yield "Loss: cannot be compared, as a way hardly ever succeeds."
    else:
        own = levels.get("loss", [None, None])
        yield (
            f"Loss given success: {first} {number(own[0])}, {rival} {number(own[1])}; "
            f"difference {effect(verdict.loss, verdict.unit)} "
            f"({margin}; p {p_value(verdict.loss.p)})."
        )
    if verdict.failures is not None:
        counts = levels.get("failures", [])
        told = ", ".join(
            f"{name} {failed} of {runs}"
            for name, (failed, runs, _) in zip((first, rival), counts, strict=False)
        )
        yield (
            f"Failed runs of three picks: {told}; difference of shares {effect(verdict.failures)} "
            f"(what would matter: {number(verdict.failure_margin)}; "
            f"p {p_value(verdict.failures.p)})."
        )
    if verdict.usable is not None:
        own = levels.get("usable", [None, None])
        yield (
            f"Usable range: {first} {number(own[0])}, {rival} {number(own[1])} "
            f"{verdict.usable_unit}; difference {effect(verdict.usable)}."
        )
    if verdict.control is not None:
        yield f"Control, a rival with a handicap: {effect(verdict.control, verdict.unit)} worse."
    if verdict.p_holm is not None:
        yield f"Holm p: {p_value(verdict.p_holm)}."
    if verdict.note:
        yield f"Note: {verdict.note}."


def _around(published: Published, ledger: Ledger, verdict: Verdict, claim: Claim) -> Iterator[str]:
    """What a comparison stands beside: the literature, its limits, its plan, its registration."""
    yield f"The literature: {claim.literature} ({claim.source})."
    yield f"Not to be read beyond: {claim.counter}"
    registration = published.registrations.get(verdict.notebook)
    if registration and verdict.id in registration["power"]:
        yield f"Planned: {planned(registration['power'][verdict.id])}."
    for why in deviations(published, ledger, verdict):
        yield f"**Deviates from what was registered**: {why}."
    if again := published.again.get(verdict.id):
        yield f"Replicated on other draws and seeds: {holds(verdict, again)}; {again.measured()}."


def planned(power: Mapping[str, Any]) -> str:
    """The chances that a registration holds, as a sentence."""
    return ", ".join(f"{what} {number(chance)}" for what, chance in power.items())


def _again(published: Published) -> str:
    """What the whole pipeline says where there is nothing to find."""
    return "\n".join(
        f"### {v.statement}\n\n**{v.verdict[:1].upper()}{v.verdict[1:]}** (`{v.id}`)\n\n"
        + "\n".join(f"* {line}" for line in measured_lines(v))
        for v in _of_kind(published, "a/a")
    )


def _demonstrations(published: Published, ledger: Ledger) -> str:
    return markdown(
        {
            "At a setting chosen to show it": v.statement,
            "Difference [90 % interval]": effect(v.loss, v.unit),
            "Seeds": number(v.loss.n) if v.loss else v.note,
            "Runs": v.note if v.loss else "–",
            "Why this setting": ledger.claims[v.id].chosen,
            "The literature": f"{ledger.claims[v.id].literature} ({ledger.claims[v.id].source})",
            "Notebook": link(v.notebook),
        }
        for v in _of_kind(published, "demonstration")
    )


def _identities(published: Published) -> str:
    return markdown(
        {
            "True by algebra, compared bit for bit": v.statement,
            "Here": f"{v.verdict}, {v.note}",
            "Notebook": link(v.notebook),
        }
        for v in _of_kind(published, "identity")
    )


def _withdrawn(published: Published) -> str:
    return "\n".join(
        f"* {link(v.notebook)}, {v.id}: {v.statement}" for v in _of_kind(published, "withdrawn")
    )


def _records(published: Published) -> str:
    accepted = carried.accepted(published.about)
    rows = markdown(
        {
            "Notebook": link(name),
            "Rows": carried.sentence(about),
            "Definitions changed since": carried.changes(about) or "none",
        }
        for name, about in published.about.items()
    )
    return rows + (f"\n\nAccepted without a run:\n\n{markdown(accepted)}" if accepted else "")


def found_cell(verdicts: Sequence[Verdict]) -> str:
    """The cell that opens a notebook: what its published run found."""
    shown = [v for v in verdicts if v.kind != "withdrawn" and v.outcome is not Outcome.NOT_RUN]
    if not shown:
        return "*Not measured yet.*"
    return "**What was found** (the published run)\n\n" + "\n".join(_found(shown))


def _found(verdicts: Iterable[Verdict]) -> Iterator[str]:
    for v in verdicts:
        if v.kind in ("comparison", "a/a"):
            yield f"* {v.statement} **{v.verdict}**. " + " ".join(list(measured_lines(v))[:3])
        elif v.kind == "demonstration" and v.loss:
            told = interval(v.loss.effect, v.loss.low, v.loss.high)
            more = f" {v.note}." if v.note else ""
            yield f"* {v.statement}: {told} {v.unit} (n = {v.loss.n}; a demonstration).{more}"
        else:
            yield f"* {v.statement}: {v.verdict}, {v.note} (an identity)."
