"""The columns of a history: ``[steps]`` or ``[steps, n_parts]``."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from cliplab.history.store import Store
from cliplab.thresholds import Step

SomeRing = TypeVar("SomeRing", bound="Ring")


class Ring(Store):
    """Steps, oldest first, and their columns: ``[steps]`` or ``[steps, n_parts]``.

    It lies on the device of the gradients. All that it holds, the learning rates and the steps
    that wait to be written included, takes at most ``max_bytes`` (or one step); then it forgets
    the oldest steps (``first_step`` says which are gone). ``labels`` name the parts.
    """

    @property
    def columns(self) -> Step[Tensor]:
        """All steps by columns, ``[steps, n_parts]`` each."""
        return Step(*self.rows.unbind(1))

    def _column(self, name: str) -> Tensor:
        if not len(self):
            return torch.empty(0, dtype=torch.float32, device="cpu")
        position = Step._fields.index(name)
        column = self._joined([block.rows[:, position] for block in self._settled()])
        return column[:, 0] if self.scalar else column

    @property
    def norm_before(self) -> Tensor:
        """Raw gradient norms."""
        return self._column("size")

    @property
    def total(self) -> Tensor:
        """Norm of all parts as one vector, ``[steps]``: ``sqrt(sum_i n_i^2)``."""
        norms = self.norm_before
        return norms if norms.ndim == 1 else norms.double().norm(dim=1).to(norms)

    @property
    def norm_after(self) -> Tensor:
        """Norms after clipping."""
        return self._column("after")

    @property
    def threshold(self) -> Tensor:
        """The limit in force."""
        return self._column("limit")

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
    def measures_updates(self) -> bool:
        """Whether ``update_norm`` holds any number."""
        return not bool(self.update_norm.isnan().all())

    @property
    def effective_lr(self) -> Tensor:
        """``lr x factor``: the learning rate the raw gradient was really used with."""
        factor = self.factor
        lr = self.lr.to(factor)
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
        squares = self.norm_before.double().square()
        return squares / squares.sum(dim=-1, keepdim=True) if not self.scalar else squares * 0 + 1

    @property
    def excess(self) -> Tensor:
        """Mean of ``max(norm - threshold, 0)`` over the steps with a finite norm."""
        over = (self.norm_before - self.threshold).clamp(min=0)
        return over.where(self.norm_before.isfinite(), math.nan).nanmean(dim=0)
