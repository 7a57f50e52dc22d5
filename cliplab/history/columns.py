"""What one clip did."""

from __future__ import annotations

import torch
from torch import Tensor

Row = Tensor | tuple[float, ...]  # the columns of a report: [6, n_parts], or numbers of one part


class ClipReport:
    """What one ``clip()`` did: scalars for one part, else ``[n_parts]``.

    ``factor`` is what the gradient was multiplied by. For scope "element" the norms are of the
    largest entry (``inf``-norms), comparable with the threshold, and the factor is L2 after / L2
    before. ``skipped`` says that the step should not be taken at all. Reading a value waits for the
    device.
    """

    fields = ("norm_before", "norm_after", "threshold", "factor", "clipped", "skipped")
    __slots__ = ("_row", "_scalar")

    def __init__(self, row: Row, scalar: bool) -> None:
        self._row, self._scalar = row, scalar

    def _column(self, i: int) -> Tensor:
        column = self._row[i]
        if not isinstance(column, Tensor):
            return torch.tensor(column if self._scalar else [column])
        return column[0] if self._scalar else column

    @property
    def norm_before(self) -> Tensor:
        """Size of the raw gradient."""
        return self._column(0)

    @property
    def norm_after(self) -> Tensor:
        """Size after clipping."""
        return self._column(1)

    @property
    def threshold(self) -> Tensor:
        """The limit in force."""
        return self._column(2)

    @property
    def factor(self) -> Tensor:
        """What the gradient was multiplied by."""
        return self._column(3)

    @property
    def clipped(self) -> Tensor:
        """Whether the size was above the limit."""
        return self._column(4).bool()

    @property
    def skipped(self) -> Tensor:
        """Whether the step should be left out."""
        return self._column(5).bool()

    def __repr__(self) -> str:
        return f"ClipReport({', '.join(f'{k}={getattr(self, k)!r}' for k in self.fields)})"
