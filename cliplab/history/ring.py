"""The store of a history: a ring of steps, kept as tensors so that recording never waits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol, Self, cast

import torch
from torch import Tensor

from cliplab.thresholds import AnyStep, Step


class Follower(Protocol):
    """What is told of every step that is recorded."""

    def update(self) -> None:
        """Look again."""

    def close(self) -> None:
        """Give way to another."""


class Ring:
    """Steps, oldest first, and their columns: ``[steps]`` or ``[steps, n_parts]``.

    It lies on the device of the gradients, holds at most ``max_bytes`` and then forgets the oldest
    steps (``first_step`` says which are gone). ``labels`` name the parts.
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
        self.follower: Follower | None = None
        self._max_bytes = max_bytes
        self._blocks: deque[Tensor] = deque()
        self._used = self._block  # rows used of the last block
        self._numbers: list[Step[float]] = []
        self._lr: deque[float | Tensor] = deque()

    def empty(self) -> Self:
        """A ring like this one without steps, to begin where this one does."""
        other = type(self)(self.labels, scalar=self.scalar, max_bytes=self._max_bytes)
        other.first_step = self.first_step
        return other

    def append(self, step: AnyStep | Tensor, lr: float | Tensor | None) -> None:
        """Record one step, or its columns as ``[6, n_parts]``; ``lr`` None: not known.

        Steps of numbers wait as they are until something is read, and are written in one go.
        """
        if isinstance(step[0], float):
            self._numbers.append(cast("Step[float]", step))
            if len(self._numbers) >= self._block:
                self._settle()
        else:
            self._settle()
            columns = tuple(step)
            self._make_room(columns[0])
            self._blocks[-1][self._used] = torch.stack(columns)
            self._used += 1
        self._lr.append(math.nan if lr is None else lr)
        if self.follower is not None:
            self.follower.update()

    def _settle(self) -> None:
        """Write the steps that wait as numbers."""
        if not self._numbers:
            return
        rows, self._numbers = torch.tensor(self._numbers).unsqueeze(2), []
        while len(rows):
            self._make_room(rows[0, 0])
            free = self._blocks[-1][self._used :]
            count = min(len(rows), len(free))
            free[:count] = rows[:count]
            self._used += count
            rows = rows[count:]

    def _make_room(self, column: Tensor) -> None:
        """Have room for a row of such columns: in a new block, for which an old one may go."""
        if self._used < self._block:
            return
        columns = len(Step._fields)
        row = columns * column.numel() * column.element_size()
        if not self._blocks:
            self._block = max(1, min(self._block, self._max_bytes // (2 * row)))
        elif (len(self._blocks) + 1) * self._block * row > self._max_bytes:
            self._blocks.popleft()
            self.first_step += self._block
            for _ in range(self._block):
                self._lr.popleft()
        self._blocks.append(column.new_empty((self._block, columns, *column.shape)))
        self._used = 0

    def label(self, part: int) -> str:
        """Name of a part."""
        return self.labels[part] if part < len(self.labels) else f"part {part}"

    def __len__(self) -> int:
        return len(self._lr)

    @property
    def rows(self) -> Tensor:
        """All steps as one tensor, ``[steps, 6, n_parts]``; see ``columns`` for names."""
        self._settle()
        if not self._blocks:
            return torch.empty(0, len(Step._fields), 1)
        *full, last = self._blocks
        return torch.cat([*full, last[: self._used]])

    @property
    def columns(self) -> Step[Tensor]:
        """All steps by columns, ``[steps, n_parts]`` each."""
        return Step(*self.rows.unbind(1))

    @property
    def part_names(self) -> list[str]:
        """Names of all parts."""
        self._settle()
        n_parts = self._blocks[-1].shape[-1] if self._blocks else 1
        return [self.label(i) for i in range(n_parts)]

    def _column(self, name: str) -> Tensor:
        self._settle()
        if not self._blocks:
            return torch.empty(0)
        position = Step._fields.index(name)
        columns = [block[:, position] for block in self._blocks]
        columns[-1] = columns[-1][: self._used]
        column = torch.cat(columns)
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
        squares = self.norm_before.double().square()
        return squares / squares.sum(dim=-1, keepdim=True) if not self.scalar else squares * 0 + 1

    @property
    def excess(self) -> Tensor:
        """Mean of ``max(norm - threshold, 0)`` over the steps with a finite norm."""
        over = (self.norm_before - self.threshold).clamp(min=0)
        return over.where(self.norm_before.isfinite(), math.nan).nanmean(dim=0)
