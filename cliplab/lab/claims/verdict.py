"""A verdict: the outcome of one claim, the reason for it, and what was measured."""

from __future__ import annotations

import html
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Outcome", "Verdict"]


class Outcome(StrEnum):
    """What may come out of a claim, the decided first."""

    SUPPORTED = "supported"
    EQUIVALENT = "equivalent"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    NO_VERDICT = "no verdict"  # measured, but in a setting that the claim does not speak of
    NOT_RUN = "not run"


DECIDED = (Outcome.SUPPORTED, Outcome.EQUIVALENT, Outcome.REFUTED)
COLOURS = dict(zip(DECIDED, ("#0072B2", "#009E73", "#D55E00"), strict=True))


@dataclass(frozen=True)
class Verdict:
    """What the rows say about one claim; None where a field does not apply."""

    id: str
    statement: str
    notebook: str
    kind: str
    outcome: Outcome
    reason: str = ""  # of an outcome that could have been another, in a word or two
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    p: float | None = None
    p_holm: float | None = None
    margin: float | None = None
    unit: str | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """The outcome with its reason, in words: ``inconclusive (n=4)``."""
        return f"{self.outcome} ({self.reason})" if self.reason else str(self.outcome)

    def to_dict(self) -> dict[str, Any]:
        """The fields published in claims.json."""
        what = ("id", "statement", "notebook", "kind", "verdict", "outcome", "reason", "note")
        measured = ("effect", "low", "high", "n", "p")
        return {key: getattr(self, key) for key in (*what, *measured)}

    def __str__(self) -> str:
        measured = self._measured()
        return f"{self.id} {self.verdict}: {self.statement}" + (
            f" [{measured}]" if measured else ""
        )

    def _repr_html_(self) -> str:
        colour = COLOURS.get(self.outcome, "#888888")
        return (
            f'<div style="border-left:4px solid {colour};padding:.2em .8em;line-height:1.5">'
            f"<b>{html.escape(self.id)} · {html.escape(self.verdict)}</b><br>"
            f"{html.escape(self.statement)}<br>"
            f'<span style="opacity:.75">{html.escape(self._measured())}</span></div>'
        )

    def _measured(self) -> str:
        parts = []
        if self.effect is not None:
            parts.append(f"effect {self.effect:+.3g} {self.unit}, margin {self.margin:g}")
        if self.low is not None and self.high is not None:
            parts.append(f"90 % interval {self.low:+.3g} to {self.high:+.3g}")
        if self.n is not None:
            parts.append(f"n = {self.n}")
        if self.p is not None:
            holm_p = "before Holm" if self.p_holm is None else f"Holm {self.p_holm:.2g}"
            parts.append(f"p = {self.p:.2g} ({holm_p})")
        return "; ".join([*parts, self.note] if self.note else parts)
