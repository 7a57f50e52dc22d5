"""What a diagnosis is made of: findings, and the record that they are read off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from cliplab.checks import check_positive, described
from cliplab.history import History, html_table
from cliplab.thresholds import Step

Losses = Sequence[float] | Tensor  # one for each step, NaN where it is not known
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
        return html_table(("severity", "finding", "evidence", "advice"), rows, text=True)


@dataclass(frozen=True)
class Record:
    """A history on the CPU: ``[steps, n_parts]``, and ``[steps]`` where ``fine``, ``total``, ``loss``.

    ``normalises``: small parts are scaled up to the limit, as large ones are scaled down.
    """

    norms: Tensor
    limits: Tensor
    clipped: Tensor
    skipped: Tensor
    fine: Tensor
    total: Tensor
    names: list[str]
    first_step: int
    lr: float
    loss: Tensor
    normalises: bool

    @property
    def steps(self) -> Tensor:
        """The numbers of the finite steps."""
        return self.fine.nonzero()[:, 0] + self.first_step


class Recorded(Protocol):
    """What has a history, as a ``Clipper`` has."""

    history: History


def read(source: History | Recorded, lr: float | None, loss: Losses | None = None) -> Record:
    """The record of a history, or of what has one; ``lr`` where it has no learning rates."""
    given = math.nan if lr is None else check_positive("lr", lr)
    history = source if isinstance(source, History) else getattr(source, "history", None)
    if not isinstance(history, History):
        raise ValueError(f"diagnose needs a History or a Clipper, got {described(source)}")
    columns = Step(*(column.cpu() for column in history.columns))
    norms = columns.size.double()
    lrs = history.lr[history.lr.isfinite()]
    grown = columns.factor > 1.001  # not what rounding makes of a 1
    return Record(
        norms,
        columns.limit.double(),
        columns.clipped.bool(),
        columns.skipped.bool(),
        norms.isfinite().all(dim=1),
        norms.norm(dim=1),
        [] if history.scalar or norms.shape[1] == 1 else history.part_names,
        history.first_step,
        float(lrs.median()) if len(lrs) else given,
        _losses(loss, history),
        getattr(source, "mode", None) == "normalise" or bool(grown.any()),
    )


def _losses(loss: Losses | None, history: History) -> Tensor:
    """The losses ``[steps]`` as doubles; NaN where none is given."""
    steps = len(history)
    if loss is None:
        return torch.full((steps,), math.nan, dtype=torch.float64, device="cpu")
    try:
        losses = torch.as_tensor(loss, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        losses = None
    if losses is None or losses.ndim != 1 or (isinstance(loss, Tensor) and loss.is_complex()):
        raise ValueError(f"loss must be numbers on one axis, got {described(loss)}")
    if len(losses) != steps:
        last = history.first_step + steps - 1
        of = f" ({history.first_step} to {last})" if steps else ""
        raise ValueError(
            f"loss must have one number for each of the {steps} recorded steps{of}, "
            f"got {len(losses)}"
        )
    return losses
