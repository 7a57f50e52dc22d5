"""A verdict: the outcome of one claim, the reason for it, and what was measured."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cliplab.lab.stats import Estimate

__all__ = ["Outcome", "Verdict"]


class Outcome(StrEnum):
    """What may come out of a claim: of a comparison for its first way, then of the other kinds."""

    HELPS = "helps"
    NO_MATTER = "no matter"
    HARMS = "harms"
    UNCLEAR = "unclear"
    HOLDS = "holds"  # an identity, in every row
    FAILS = "fails"  # an identity, in some row
    SHOWN = "shown"  # a demonstration, a share, an estimate: an interval, no verdict
    NO_VERDICT = "no verdict"  # measured, but in a setting that the claim does not speak of
    NOT_RUN = "not run"
    WITHDRAWN = "withdrawn"


DECIDED = (Outcome.HELPS, Outcome.NO_MATTER, Outcome.HARMS)
COLOURS = dict(zip(DECIDED, ("#0072B2", "#009E73", "#D55E00"), strict=True))


@dataclass(frozen=True)
class Verdict:
    """What the rows say about one claim; None where a field does not apply.

    Effects are signed so that positive speaks for the first-named way: ``loss`` is the rival's loss
    given success minus the first's (of a demonstration, what its metric differs by; of a share, the
    share), ``failures``
    the rival's share of failed runs minus the first's. ``control``: the handicapped rival's loss
    minus the first's. ``usable``: the first's usable range minus the rival's, in decades of the
    learning rate or, without one, in shares of all configurations.
    """

    id: str
    kind: str
    statement: str
    notebook: str
    outcome: Outcome
    reason: str = ""  # of an outcome that could have been another, in a word or two
    first: str = ""
    rival: str = ""
    handicap: str = ""  # the control's name
    loss: Estimate | None = None
    failures: Estimate | None = None
    control: Estimate | None = None
    usable: Estimate | None = None
    levels: Mapping[str, Any] | None = None  # each way's own loss, failures, usable range
    p_holm: float | None = None
    margin: float | None = None
    failure_margin: float | None = None
    unit: str = ""
    usable_unit: str = ""
    small: bool = False  # of a study that decides nothing
    note: str = ""

    @property
    def verdict(self) -> str:
        """The outcome with its reason, in words: ``unclear (loss wide)``, ``helps (small)``."""
        said = ", ".join(filter(None, [self.reason, "small" if self.small else ""]))
        return f"{self.outcome} ({said})" if said else str(self.outcome)

    def to_dict(self) -> dict[str, Any]:
        """The fields published in claims.json."""
        what = ("id", "statement", "notebook", "kind", "verdict", "outcome", "reason", "note")
        more = ("first", "rival", "margin", "failure_margin", "unit", "p_holm")
        estimands = ("loss", "failures", "control", "usable")
        return {
            **{key: getattr(self, key) for key in (*what, *more)},
            **{key: _numbers(getattr(self, key)) for key in estimands},
        }

    def __str__(self) -> str:
        measured = self.measured()
        return f"{self.id} {self.verdict}: {self.statement}" + (
            f" [{measured}]" if measured else ""
        )

    def _repr_html_(self) -> str:
        colour = COLOURS.get(self.outcome, "#888888")
        return (
            f'<div style="border-left:4px solid {colour};padding:.2em .8em;line-height:1.5">'
            f"<b>{html.escape(self.id)} · {html.escape(self.verdict)}</b><br>"
            f"{html.escape(self.statement)}<br>"
            f'<span style="opacity:.75">{html.escape(self.measured())}</span></div>'
        )

    def measured(self) -> str:
        """The numbers in one line."""
        parts = []
        if self.loss is not None:
            name = {"demonstration": "difference", "share": "share"}.get(self.kind, "loss")
            parts.append(f"{name} {_told(self.loss, self.margin, self.unit)}")
        if self.failures is not None:
            parts.append(f"failures {_told(self.failures, self.failure_margin, 'points', 100)}")
        if self.usable is not None:
            parts.append(f"usable range {_told(self.usable, None, self.usable_unit)}")
        if self.p_holm is not None:
            parts.append(f"Holm p = {self.p_holm:.2g}")
        return "; ".join([*parts, self.note] if self.note else parts)


def _told(estimate: Estimate, margin: float | None, unit: str, scale: int = 1) -> str:
    text = f"{scale * estimate.effect:+.3g}"
    if math.isfinite(estimate.high - estimate.low):  # too few seeds have none
        text += f" [{scale * estimate.low:+.3g}, {scale * estimate.high:+.3g}]"
    text = f"{text} {unit}".rstrip()
    return text if margin is None else f"{text} (margin {scale * margin:g})"


def _numbers(estimate: Estimate | None) -> dict[str, Any]:
    names = ("effect", "low", "high", "p", "n")
    numbers = {name: None if estimate is None else getattr(estimate, name) for name in names}
    return {n: v if v is not None and math.isfinite(v) else None for n, v in numbers.items()}
