"""What a diagnosis is made of: findings, and the record that they are read off."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (or notable): ``evidence`` holds the numbers of ``message``."""

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
    """A list of findings, the worst first, that prints and shows itself as a table."""

    @property
    def headline(self) -> str:
        """How many there are of every severity."""
        counts = {s: sum(f.severity == s for f in self) for s in SEVERITIES}
        return ", ".join(f"{n} {s}" for s, n in counts.items() if n) or "nothing found"

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or self.headline

    def _repr_html_(self) -> str:
        rows = [(f.severity, f.name, f.message, f.advice) for f in self]
        table = [("severity", "finding", "evidence", "advice"), *rows]
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table]
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


@dataclass(frozen=True)
class Record:
    """A history on the CPU: ``[steps, n_parts]``, and ``[steps]`` where ``fine`` and ``total``."""

    norms: Tensor
    limits: Tensor
    clipped: Tensor
    skipped: Tensor
    fine: Tensor
    total: Tensor
    names: list[str]
    first_step: int
    lr: float

    @property
    def steps(self) -> Tensor:
        """The numbers of the finite steps."""
        return self.fine.nonzero()[:, 0] + self.first_step
