"""What happened at every step, kept as tensors so that recording never waits for a device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas


class ClipReport:
    """What one ``clip()`` did: scalars for one part, else ``[n_parts]``.

    ``factor`` is what the gradient was multiplied by. For scope "element" the norms are of the
    largest entry (``inf``-norms), comparable with the threshold, and the factor is L2 after / L2
    before. ``skipped`` says that the step should not be taken at all. Reading a value waits for the
    device.
    """

    fields = ("norm_before", "norm_after", "threshold", "factor", "clipped", "skipped")
    __slots__ = ("_row",)

    def __init__(self, row: Tensor) -> None:
        self._row = row

    @property
    def norm_before(self) -> Tensor:
        """Size of the raw gradient."""
        return self._row[0]

    @property
    def norm_after(self) -> Tensor:
        """Size after clipping."""
        return self._row[1]

    @property
    def threshold(self) -> Tensor:
        """The limit in force."""
        return self._row[2]

    @property
    def factor(self) -> Tensor:
        """What the gradient was multiplied by."""
        return self._row[3]

    @property
    def clipped(self) -> Tensor:
        """Whether the size was above the limit."""
        return self._row[4].bool()

    @property
    def skipped(self) -> Tensor:
        """Whether the step should be left out."""
        return self._row[5].bool()

    def __repr__(self) -> str:
        return f"ClipReport({', '.join(f'{k}={getattr(self, k)!r}' for k in self.fields)})"


class History:
    """The reports of the last steps, oldest first; properties are ``[steps]`` or
    ``[steps, n_parts]``.

    A ring on the device of the gradients: it holds at most ``max_bytes`` and then forgets the
    oldest steps (``first_step`` says which are gone). ``labels`` name the parts.

    >>> history = History()
    >>> history.norm_before.shape
    torch.Size([0])
    """

    _block = 1024  # steps in one allocation

    def __init__(
        self,
        labels: Sequence[str] = (),
        *,
        scalar: bool = False,
        max_bytes: int = 1 << 28,
    ) -> None:
        self.labels, self.scalar = list(labels), scalar
        self.first_step = 0
        self._max_bytes = max_bytes
        self._blocks: deque[Tensor] = deque()
        self._used = self._block  # rows used of the last block
        self._lr: deque[float | Tensor] = deque()

    def append(self, report: Tensor, lr: float | Tensor | None) -> None:
        """Record one step: ``[6, n_parts]``, the columns of a report; ``lr`` None: not known."""
        if self._used >= self._block:
            self._grow(report)
        self._blocks[-1][self._used] = report
        self._used += 1
        self._lr.append(math.nan if lr is None else lr)

    def label(self, part: int) -> str:
        """Name of a part."""
        return self.labels[part] if part < len(self.labels) else f"part {part}"

    def _grow(self, report: Tensor) -> None:
        row = report.numel() * report.element_size()
        if not self._blocks:
            self._block = max(1, min(self._block, self._max_bytes // (2 * row)))
        elif (len(self._blocks) + 1) * self._block * row > self._max_bytes:
            self._blocks.popleft()
            self.first_step += self._block
            for _ in range(self._block):
                self._lr.popleft()
        self._blocks.append(report.new_empty((self._block, *report.shape)))
        self._used = 0

    def __len__(self) -> int:
        return len(self._lr)

    def _column(self, name: str) -> Tensor:
        if not self._blocks:
            return torch.empty(0)
        position = ClipReport.fields.index(name)
        columns = [block[:, position] for block in self._blocks]
        columns[-1] = columns[-1][: self._used]
        column = torch.cat(columns)
        return column[:, 0] if self.scalar else column

    @property
    def norm_before(self) -> Tensor:
        """Raw gradient norms."""
        return self._column("norm_before")

    @property
    def norm_after(self) -> Tensor:
        """Norms after clipping."""
        return self._column("norm_after")

    @property
    def threshold(self) -> Tensor:
        """The limit in force."""
        return self._column("threshold")

    @property
    def factor(self) -> Tensor:
        """What the gradient was multiplied by; 0 at a skipped step."""
        return self._column("factor").where(~self.skipped, 0.0)

    @property
    def clipped(self) -> Tensor:
        """Whether the size was above the limit."""
        return self._column("clipped").bool()

    @property
    def skipped(self) -> Tensor:
        """Whether the step was to be left out."""
        return self._column("skipped").bool()

    @property
    def lr(self) -> Tensor:
        """Learning rates ``[steps]``, NaN where the clipper was not attached to an optimizer."""
        return torch.tensor([float(lr) for lr in self._lr])

    @property
    def effective_lr(self) -> Tensor:
        """``lr x factor``: the learning rate the raw gradient was really used with."""
        factor = self.factor
        lr = self.lr.to(factor.device)
        return factor * lr.reshape(-1, *[1] * (factor.ndim - 1))

    @property
    def clip_fraction(self) -> Tensor:
        """Share of the steps that were clipped: a scalar or ``[n_parts]``."""
        return self.clipped.float().mean(dim=0)

    @property
    def nonfinite(self) -> Tensor:
        """Whether the raw norm was NaN or inf."""
        return ~self.norm_before.isfinite()

    @property
    def shares(self) -> Tensor:
        """Every part's share of the squared gradient, ``n_i^2 / sum_j n_j^2``."""
        squares = self.norm_before.square()
        return squares / squares.sum(dim=-1, keepdim=True) if not self.scalar else squares * 0 + 1

    @property
    def excess(self) -> Tensor:
        """Mean of ``max(norm - threshold, 0)`` over the steps with a finite norm."""
        over = (self.norm_before - self.threshold).clamp(min=0)
        return over.where(self.norm_before.isfinite(), math.nan).nanmean(dim=0)

    def to_frame(self) -> pandas.DataFrame:
        """Return one tidy row per step (and part) as a pandas data frame."""
        import pandas

        columns = {name: self._column(name).cpu() for name in ClipReport.fields}
        columns["factor"], columns["effective_lr"] = self.factor.cpu(), self.effective_lr.cpu()
        parts = columns["factor"].shape[1] if columns["factor"].ndim > 1 else 1
        step = torch.arange(len(self)).repeat_interleave(parts) + self.first_step
        index = {"step": step.numpy(), "part": torch.arange(parts).repeat(len(self)).numpy()}
        lr = self.lr.repeat_interleave(parts).numpy()
        values = {name: column.flatten().numpy() for name, column in columns.items()}
        return pandas.DataFrame({**index, **values, "lr": lr})
