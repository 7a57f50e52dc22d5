"""What one clip did."""

from __future__ import annotations

from torch import Tensor

from cliplab.history import show
from cliplab.thresholds import AnyStep, as_column


class ClipReport:
    """What one ``clip()`` did: scalars for one part, else ``[n_parts]``.

    ``factor`` is what the gradient was multiplied by. For scope "element" the norms are of the
    largest entry (``inf``-norms), comparable with the threshold, and the factor is L2 after / L2
    before. ``skipped`` says that the step should not be taken at all. Reading a value waits for the
    device.

    Args:
        step: what was done, in columns of all parts.
        scalar: whether there is one part, whose numbers are scalars.
    """

    fields = ("norm_before", "norm_after", "threshold", "factor", "clipped", "skipped")
    __slots__ = ("_scalar", "_step")

    def __init__(self, step: AnyStep, scalar: bool) -> None:
        self._step, self._scalar = step, scalar

    def _read(self, column: Tensor | float) -> Tensor:
        values = as_column(column)
        return (values[0] if self._scalar else values).clone()  # a report is nobody's to write to

    @property
    def norm_before(self) -> Tensor:
        """Size of the raw gradient."""
        return self._read(self._step.size)

    @property
    def norm_after(self) -> Tensor:
        """Size after clipping."""
        return self._read(self._step.after)

    @property
    def threshold(self) -> Tensor:
        """The limit in force."""
        return self._read(self._step.limit)

    @property
    def factor(self) -> Tensor:
        """What the gradient was multiplied by."""
        return self._read(self._step.factor)

    @property
    def clipped(self) -> Tensor:
        """Whether the size was above the limit."""
        return self._read(self._step.clipped).bool()

    @property
    def skipped(self) -> Tensor:
        """Whether the step should be left out."""
        return self._read(self._step.skipped).bool()

    def _columns(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.fields}

    def __repr__(self) -> str:
        return show.report_line(type(self).__name__, self._columns())

    def _repr_html_(self) -> str:
        return show.report_table(self._columns())
