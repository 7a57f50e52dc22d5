"""What a batch prints: its verdicts, and which runs failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cliplab.lab.batch.oneline import one_line
from cliplab.lab.batch.spec import Failure
from cliplab.lab.claims.ledger import STUDIED
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report import beside, tables
from cliplab.lab.report.beside import Told

__all__ = ["failure_table", "verdict_table"]


def verdict_table(
    verdicts: Sequence[Verdict],
    width: int | None = None,
    published: Mapping[str, Verdict] | None = None,
) -> str:
    """One line a claim, the published verdict where there is one; the withdrawn are counted.

    So are, of several notebooks, claims that ask for no answer but show something. Within a width,
    numbers go until a third of it is left for what was asked, which is then cut.
    """
    every = list(beside.told(verdicts, published or {}))
    told = [one for one in every if one.verdict.outcome is not Outcome.SHOWN]
    if len({one.verdict.notebook for one in every}) == 1 or not told:
        told = every
    columns = {
        "claim": [one.verdict.id for one in told],
        "published" if published else "answer": [one.verdict.verdict for one in told],
        "loss [90 % interval]": [tables.effect(one.verdict.loss, one.verdict.unit) for one in told],
        "failures": [tables.points(one.verdict.failures) for one in told],
        "Holm p": [tables.p_value(one.verdict.p_holm) for one in told],
        "what was asked": [_asked(one.verdict) for one in told],
    }
    if any(one.here for one in told):
        columns = _beside(columns, told)
    for name in ("Holm p", "failures", "this run", "loss [90 % interval]"):
        if width and _before_last(columns) > 2 * width // 3:
            columns.pop(name, None)
    lines = tables.aligned([[*columns], *zip(*columns.values(), strict=True)]).splitlines()
    lines = [_cut(line, width) for line in lines] if told else []
    if any(one.verdict.kind in STUDIED for one in told):
        lines.append("Differences above 0 speak for the first-named way.")
    if any(one.here for one in told):
        lines.append("This run decides nothing: the answers are the published ones.")
    if shown := len(every) - len(told):
        lines.append(f"Shown without a verdict, in the report: {shown}.")
    if withdrawn := len(verdicts) - len(every):
        lines.append(f"Withdrawn, being redone: {withdrawn}.")
    return "\n".join(lines)


def _asked(verdict: Verdict) -> str:
    """What was asked, with its note: of a study before it, as the end may be cut."""
    note, statement = verdict.note and f"({verdict.note})", verdict.statement
    parts = (note, statement) if verdict.kind in STUDIED else (statement, note)
    return " ".join(filter(None, parts))


def _beside(columns: Mapping[str, list[str]], told: Sequence[Told]) -> dict[str, list[str]]:
    """The columns with what this run measured, and what it would have answered, before the last."""
    here = [one.here or one.verdict for one in told]
    own = [f"{v.verdict}: {tables.effect(v.loss, v.unit)}" for v in here]
    *first, last = columns.items()
    return dict([*first, ("this run", own), last])


def _before_last(columns: Mapping[str, list[str]]) -> int:
    """The width of all columns but the last one."""
    *others, _ = columns.items()
    return sum(max(map(len, [name, *cells])) + 2 for name, cells in others)


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"


def failure_table(failures: Sequence[Failure]) -> str:
    """One line a failed run: which, in which cell, why, and where the rest stands."""
    head = ("failed run", "cell", "error", "details")
    rows = [
        (
            one_line(f.spec.label),
            f.cell or "–",
            one_line(f.error),
            str(f.spec.error_path) if f.spec.error_path.exists() else "–",
        )
        for f in failures
    ]
    return tables.aligned([head, *rows])
