"""The steps that the rows of a log belong to: in order, each once, the later row where two are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliplab.checks import counted
from cliplab.diagnosis.logs.columns import Columns, Series, Unfinished

LAST = float(1 << 53)  # from there on whole numbers can no longer be told apart
OFTEN = (
    0.5  # of the rows repeat a step: it is counted anew, by epoch say, and is no step of the run
)


class Steps:
    """Columns by step; by row where a log has no column of steps."""

    def __init__(self, columns: Columns, name: str | None) -> None:
        self._columns, self._name = columns, name
        self._known: Series | None = None
        if name is not None:
            self._known = columns.series(name)
            values = self._known.values
            bad = ~((values >= 0) & (values <= LAST) & (values == values.floor()))
            if bool(bad.any()):
                value = float(values[bad][0])
                raise ValueError(f"column {name}: {value:g} is no number of a step; {_WAY_OUT}")

    def of_norms(self, name: str, notes: list[str]) -> tuple[Tensor, Tensor]:
        """Steps ``[n]`` with a norm and the norms, and note what was odd; ``ValueError``,
        ``Unfinished`` if there is none."""
        count = len(self._columns.series(name).rows)
        if blanks := self._columns.blanks.get(name):
            notes.append(f"{name} is empty in {counted(blanks, 'row')}: left out")
        at, values = self._with_step(name)
        if not len(at):
            raise Unfinished(f"no row has both {name} and {self._name}")
        if len(at) < count:
            what = counted(count - len(at), "row")
            notes.append(f"{what} with {name} and without {self._name}: left out")
        if bool((values < 0).any()):
            first = int((values < 0).nonzero()[0])
            where = f"step {int(at[first])}" if self._name else f"row {int(at[first]) + 1}"
            raise ValueError(f"column {name}: {float(values[first]):g} at {where} is no norm")
        steps, norms = _in_order(at, values)
        repeated = len(at) - len(steps)
        if repeated > OFTEN * len(at):
            raise ValueError(
                f"column {self._name} repeats itself in {repeated} of {len(at)} rows; {_WAY_OUT}"
            )
        if repeated:
            what = counted(repeated, "row")
            notes.append(f"{what} of a step that is logged again, as after a resume: left out")
        elif bool((at.diff() < 0).any()):
            notes.append(f"rows out of order: sorted by {self._name}")
        return steps, norms

    def at(self, name: str, steps: Tensor) -> Tensor:
        """A column at some steps ``[n]``; NaN where it was not logged."""
        found, values = _in_order(*self._with_step(name))
        if not len(found):
            return torch.full(steps.shape, math.nan, dtype=torch.float64)
        at = torch.searchsorted(found, steps).clamp(max=len(found) - 1)
        return values[at].where(found[at] == steps, math.nan)

    def _with_step(self, name: str) -> tuple[Tensor, Tensor]:
        """The steps (or rows) where a column was logged, as they come, and its numbers."""
        rows, values = self._columns.series(name)
        if self._known is None:
            return rows, values
        at = torch.searchsorted(self._known.rows, rows).clamp(max=len(self._known.rows) - 1)
        has = self._known.rows[at] == rows
        return self._known.values[at][has].long(), values[has]


_WAY_OUT = "name the right column with --step (none: rows are counted)"


def _in_order(steps: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted by step, the last of those that are the same."""
    steps, order = steps.sort(stable=True)
    is_last = torch.ones(len(steps), dtype=torch.bool)
    is_last[:-1] = steps.diff() > 0
    return steps[is_last], values[order][is_last]


def spacing(steps: Tensor) -> list[str]:
    """What there is to say of a log that does not hold every step."""
    gaps = steps.diff()
    if not len(gaps) or int(gaps.max()) == 1:
        return []
    least, usual, most = int(gaps.min()), int(gaps.median()), int(gaps.max())
    apart = f"{most}" if least == most else f"{least} to {most} (mostly {usual})"
    return [f"rows are {apart} steps apart: what happened between them is not seen"]
