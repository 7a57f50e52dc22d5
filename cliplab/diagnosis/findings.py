"""What a diagnosis is made of: findings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from cliplab.history import html_table

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (or notable): ``evidence`` holds the numbers of ``message``.

    Args:
        name: what was found, a few words.
        severity: "critical", "warning" or "info".
        message: what shows it.
        advice: what to do.
        evidence: numbers by name.
    """

    name: str
    severity: Severity
    message: str
    advice: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.severity}: {self.name}: {self.message}. {self.advice}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a number that is not finite is None."""
        unknown = {
            k: None
            for k, v in self.evidence.items()
            if isinstance(v, float) and not math.isfinite(v)
        }
        return vars(self) | {"evidence": self.evidence | unknown}


class Findings(list[Finding]):
    """A list of findings, the worst first, that prints and shows itself as a table.

    Args:
        iterable: findings.
    """

    @property
    def headline(self) -> str:
        """How many there are of every severity."""
        counts = {s: sum(f.severity == s for f in self) for s in SEVERITIES}
        return ", ".join(f"{n} {s}" for s, n in counts.items() if n) or "nothing found"

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or self.headline

    def _repr_html_(self) -> str:
        rows = [(f.severity, f.name, f.message, f.advice) for f in self]
        return html_table(("severity", "finding", "evidence", "advice"), rows, text=True)
