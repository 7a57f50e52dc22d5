"""Columns of a log become a history."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cliplab.diagnosis.logs.columns import Columns, Unfinished
from cliplab.diagnosis.logs.names import Naming, choose, listed
from cliplab.diagnosis.logs.steps import Steps, spacing
from cliplab.history import History
from cliplab.thresholds import Step, respond

OWN = "norm_before"  # in a log of a clipper: the other numbers of its steps stand beside it
BESIDE = ("norm_after", "factor", "clipped", "skipped", "update_norm", "threshold", "lr")
HALF = 0.5  # of the parts were clipped: so was the step


@dataclass(frozen=True)
class Log:
    """A log as a history, and what is known of its rows ``[n]``: number of the step, and loss.

    ``columns`` says by role which column was taken, or which number; ``notes`` what was odd.
    """

    history: History
    format: str
    steps: Tensor | None = None
    loss: Tensor | None = None
    columns: dict[str, str | float | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def assemble(columns: Columns, naming: Naming, kind: str) -> Log:
    """Make a history of the columns of a log: one row a step, in order.

    ``Unfinished`` if there is no norm (yet), ``ValueError`` where it cannot be told which column
    is what, or one holds what it must not.
    """
    notes = list(columns.notes)
    names = [*columns.names, *(name for name in columns.texts if name not in columns.names)]
    plain = [name for name in columns.names if name not in columns.texts]
    norm, _ = choose("norm", naming.norm, names, needed=True)
    if norm is None:
        raise Unfinished(f"no column of gradient norms, name it with --norm; {listed(plain)}")
    own = _own(norm, plain)
    step, _ = choose("step", naming.step, names, needed=True)
    taken: dict[str, str | float | None] = {"norm": norm, "step": step}
    for role in ("loss", "lr", "threshold"):
        named = getattr(naming, role)
        if isinstance(named, float):
            taken[role] = named
            continue
        known = plain if named is None else names  # a guess passes over what is no number
        taken[role], note = choose(role, named or own.get(role), known, needed=False)
        notes += [note] if note else []

    by_step = Steps(columns, step)
    steps, norms = by_step.of_norms(norm, notes)

    def beside(what: str | float | None) -> Tensor:
        if isinstance(what, str):
            return by_step.at(what, steps)
        return torch.full_like(norms, math.nan if what is None else what)

    history = History(scalar=True, max_bytes=1 << 60)
    history.first_step = int(steps[0]) if step else 0
    given = {name: beside(column) for name, column in own.items()}
    rows = _rows(norms, beside(taken["threshold"]), given, notes)
    history.extend(rows, _array(beside(taken["lr"])), _array(beside(own.get("update_norm"))))
    loss = beside(taken["loss"]) if taken["loss"] else None
    if not step:
        steps = torch.arange(len(norms))
        notes.append("no column of steps: rows are counted")
    return Log(history, kind, steps, loss, taken, notes + spacing(steps))


def _own(norm: str, names: list[str]) -> dict[str, str]:
    """The columns of a clipper's log that stand beside its norm."""
    if not norm.endswith(OWN):
        return {}
    columns = {name: norm.removesuffix(OWN) + name for name in BESIDE}
    return {name: column for name, column in columns.items() if column in names}


def _rows(norms: Tensor, limits: Tensor, own: dict[str, Tensor], notes: list[str]) -> Tensor:
    """The recorded columns ``[n, 6, 1]``: as logged, else what follows from norms and limits."""
    step = respond(norms, limits.where(limits > 0, math.inf), norms.isfinite())

    def logged(name: str, otherwise: Tensor) -> Tensor:
        values = own.get(name)
        return otherwise if values is None else values.where(~values.isnan(), otherwise.double())

    shares = logged("clipped", step.clipped)
    if bool(((shares > 0) & (shares < 1)).any()):
        notes.append(f"a step counts as clipped if {HALF:.0%} of its parts were")
    factor = logged("factor", step.factor)
    return torch.stack(
        Step(
            norms,
            logged("norm_after", norms * factor),
            step.limit,
            factor,
            (shares >= HALF).double(),
            (logged("skipped", step.skipped) >= HALF).double(),
        ),
        dim=1,
    )[:, :, None]


def _array(values: Tensor) -> array[float]:
    return array("d", values.tolist())
