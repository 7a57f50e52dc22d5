"""What happened at every step, kept as tensors so that recording never waits for a device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas


class ClipReport(NamedTuple):
    """What one ``clip()`` did: scalars for scope "global" and "element", else ``[n_parts]``.

    ``factor`` is what the gradient was multiplied by. For "element" the norms are of the largest
    entry (``inf``-norms), comparable with the threshold, and the factor is L2 after / L2 before.
    ``skipped`` says that the step should not be taken at all. Reading a value waits for the device.
    """

    norm_before: Tensor
    norm_after: Tensor
    threshold: Tensor
    factor: Tensor
    clipped: Tensor
    skipped: Tensor


class History:
    """The reports of all steps, oldest first; properties are ``[steps]`` or ``[steps, n_parts]``.

    >>> history = History()
    >>> history.norm_before.shape
    torch.Size([0])
    """

    def __init__(self) -> None:
        self._steps: list[Tensor] = []
        self._lr: list[float] = []

    def append(self, report: ClipReport, lr: float | None) -> None:
        """Record one step; ``lr`` is the optimizer's learning rate, None where it is not known."""
        self._steps.append(torch.stack([column.to(report.norm_before) for column in report]))
        self._lr.append(math.nan if lr is None else lr)

    def __len__(self) -> int:
        return len(self._steps)

    def _column(self, name: str) -> Tensor:
        if not self._steps:
            return torch.empty(0)
        position = ClipReport._fields.index(name)
        return torch.stack([step[position] for step in self._steps])

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
        return self._column("factor").where(~self._column("skipped").bool(), 0.0)

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
        return torch.tensor(self._lr)

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
    def excess(self) -> Tensor:
        """Mean of ``max(norm - threshold, 0)`` over the steps with a finite norm."""
        over = (self.norm_before - self.threshold).clamp(min=0)
        return over.where(self.norm_before.isfinite(), math.nan).nanmean(dim=0)

    def to_frame(self) -> pandas.DataFrame:
        """Return one tidy row per step (and part) as a pandas data frame."""
        import pandas

        columns = {name: self._column(name).cpu() for name in ClipReport._fields}
        columns["factor"], columns["effective_lr"] = self.factor.cpu(), self.effective_lr.cpu()
        parts = columns["factor"].shape[1] if columns["factor"].ndim > 1 else 1
        step = torch.arange(len(self)).repeat_interleave(parts)
        index = {"step": step.numpy(), "part": torch.arange(parts).repeat(len(self)).numpy()}
        lr = self.lr.repeat_interleave(parts).numpy()
        values = {name: column.flatten().numpy() for name, column in columns.items()}
        return pandas.DataFrame({**index, **values, "lr": lr})
