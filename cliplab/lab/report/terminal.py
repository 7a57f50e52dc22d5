"""What a batch prints: its verdicts, and which runs failed."""

from __future__ import annotations

from collections.abc import Sequence

from cliplab.lab.batch.oneline import one_line
from cliplab.lab.batch.spec import Failure
from cliplab.lab.claims.ledger import STUDIED
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report import tables

__all__ = ["failure_table", "verdict_table"]


def verdict_table(verdicts: Sequence[Verdict], width: int | None = None) -> str:
    """One line a claim, cut to a width in what was asked; those that are withdrawn are counted."""
    head = (
        "claim",
        "answer",
        "loss [90 % interval]",
        "failures",
        "Holm p",
        "what was asked",
    )
    shown = [v for v in verdicts if v.outcome is not Outcome.WITHDRAWN]
    rows = [
        (
            v.id,
            v.verdict,
            tables.effect(v.loss, v.unit),
            tables.points(v.failures),
            tables.p_value(v.p_holm),
            f"{v.statement} ({v.note})" if v.note else v.statement,
        )
        for v in shown
    ]
    withdrawn = len(verdicts) - len(shown)
    lines = tables.aligned([head, *rows]).splitlines() if rows else []
    if width and lines:
        most = max(width, lines[0].index(head[-1]) + 24)
        lines = [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
    if any(v.kind in STUDIED for v in shown):
        lines.append("Differences above 0 speak for the first-named way.")
    if withdrawn:
        lines.append(f"Withdrawn, being redone: {withdrawn}.")
    return "\n".join(lines)


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
