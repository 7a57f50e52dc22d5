"""The store of a history: a ring of steps, kept as tensors so that recording never waits."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor

from cliplab.checks import check_count
from cliplab.thresholds import AnyStep, Step, as_column

COLUMNS = len(Step._fields)
LAST_STEP = 1 << 62  # no step has a higher number
WAITING = 64  # bytes of a step that waits as numbers: its columns, its rate, and an array's slack


class Follower(Protocol):
    """What is told of every step that is recorded."""

    def update(self) -> None:
        """Look again."""

    def close(self) -> None:
        """Give way to another."""


@dataclass(slots=True)
class Block:
    """Room for some steps: ``rows [steps, 6, n_parts]``, and the learning rates of each.

    A rate that is a tensor is kept where it lies, in ``device_lrs [steps]``; ``lrs`` has NaN then.
    """

    rows: Tensor
    lrs: array[float]
    device_lrs: Tensor | None = None

    def put_rate(self, at: int, lr: float | Tensor | None) -> None:
        """Note a learning rate, without waiting for the device it lies on."""
        if isinstance(lr, Tensor):
            if self.device_lrs is None:
                dtype = torch.promote_types(lr.dtype, torch.float32)
                unknown = torch.full((len(self.lrs),), math.nan, dtype=dtype, device=lr.device)
                self.device_lrs = unknown
            self.device_lrs[at] = lr
        elif lr is not None:
            self.lrs[at] = lr

    def rates(self) -> Tensor:
        """All learning rates as doubles on the CPU."""
        numbers = torch.frombuffer(self.lrs, dtype=torch.float64)
        if self.device_lrs is None:
            return numbers
        return numbers.where(~numbers.isnan(), self.device_lrs.cpu().double())


class Ring:
    """Steps, oldest first, and their columns: ``[steps]`` or ``[steps, n_parts]``.

    It lies on the device of the gradients. All that it holds, the learning rates and the steps
    that wait to be written included, takes at most ``max_bytes`` (or one step); then it forgets
    the oldest steps (``first_step`` says which are gone). ``labels`` name the parts.
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
        self._max_bytes = check_count("max_bytes", max_bytes)
        self._patience = max(1, min(self._block, max_bytes // (4 * WAITING)))
        self._blocks: deque[Block] = deque()
        self._used = self._block  # rows used of the last block
        self._waiting: array[float] = array("d")  # steps of numbers: six columns and the rate

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"follower": None}  # a copy is drawn nowhere

    def empty(self) -> Self:
        """A ring like this one without steps, to begin where this one does."""
        other = type(self)(self.labels, scalar=self.scalar, max_bytes=self._max_bytes)
        other.first_step = self.first_step
        return other

    def append(self, step: AnyStep | Tensor, lr: float | Tensor | None) -> None:
        """Record one step, or its columns as ``[6, n_parts]``; ``lr`` None: not known.

        Steps of numbers, those of an fp32 gradient, wait as they are until something is read, and
        are written in one go.
        """
        if isinstance(step[0], float) and not isinstance(lr, Tensor):
            self._waiting.extend(cast("Step[float]", step))
            self._waiting.append(math.nan if lr is None else lr)
            if len(self._waiting) >= (COLUMNS + 1) * self._patience:
                self._settle()
        else:
            self._settle()
            row = torch.stack(tuple(map(as_column, step)))
            self._make_room(row, lr)
            block = self._blocks[-1]
            block.rows[self._used] = row
            block.put_rate(self._used, lr)
            self._used += 1
        if self.follower is not None:
            self.follower.update()

    def extend(self, rows: Tensor, lrs: array[float]) -> None:
        """Record steps, ``[steps, 6, n_parts]``, with their learning rates."""
        self._settle()
        done = 0
        while done < len(rows):
            self._make_room(rows[0])
            block, at = self._blocks[-1], self._used
            count = min(len(rows) - done, self._block - at)
            block.rows[at : at + count] = rows[done : done + count]
            block.lrs[at : at + count] = lrs[done : done + count]
            self._used += count
            done += count

    def _settle(self) -> None:
        """Write the steps that wait as numbers."""
        if self._waiting:
            waiting, self._waiting = self._waiting, array("d")
            steps = torch.frombuffer(waiting, dtype=torch.float64).reshape(-1, COLUMNS + 1)
            self.extend(steps[:, :COLUMNS, None].float(), waiting[COLUMNS :: COLUMNS + 1])

    def _make_room(self, row: Tensor, lr: float | Tensor | None = None) -> None:
        """Have room for such a row: in a new block, for which old ones may have to go."""
        if self._used < self._block:
            return
        size = row.numel() * row.element_size() + (16 if isinstance(lr, Tensor) else 8)
        limit = self._max_bytes - WAITING * self._patience
        if not self._blocks:
            self._block = max(1, min(self._block, limit // (2 * size)))
        while self._blocks and (len(self._blocks) + 1) * self._block * size > limit:
            self._blocks.popleft()
            self.first_step += self._block
        with torch.inference_mode(False):  # else no later step could be written to it
            rows = row.new_empty((self._block, *row.shape))
        self._blocks.append(Block(rows, array("d", [math.nan]) * self._block))
        self._used = 0

    def label(self, part: int) -> str:
        """Name of a part."""
        return self.labels[part] if part < len(self.labels) else f"part {part}"

    def __len__(self) -> int:
        written = (len(self._blocks) - 1) * self._block + self._used if self._blocks else 0
        return written + len(self._waiting) // (COLUMNS + 1)

    @property
    def rows(self) -> Tensor:
        """All steps as one tensor, ``[steps, 6, n_parts]``; see ``columns`` for names."""
        self._settle()
        if not self._blocks:
            return torch.empty(0, COLUMNS, 1, dtype=torch.float32, device="cpu")
        *full, last = (block.rows for block in self._blocks)
        return torch.cat([*full, last[: self._used]])

    @property
    def columns(self) -> Step[Tensor]:
        """All steps by columns, ``[steps, n_parts]`` each."""
        return Step(*self.rows.unbind(1))

    @property
    def part_names(self) -> list[str]:
        """Names of all parts."""
        self._settle()
        n_parts = self._blocks[-1].rows.shape[-1] if self._blocks else 1
        return [self.label(i) for i in range(n_parts)]

    def _column(self, name: str) -> Tensor:
        self._settle()
        if not self._blocks:
            return torch.empty(0, dtype=torch.float32, device="cpu")
        position = Step._fields.index(name)
        columns = [block.rows[:, position] for block in self._blocks]
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
        """Learning rates ``[steps]``, NaN where the clipper was not attached to an optimizer.

        In double precision, as they were given, and on the CPU.
        """
        self._settle()
        if not self._blocks:
            return torch.empty(0, dtype=torch.float64, device="cpu")
        *full, last = (block.rates() for block in self._blocks)
        return torch.cat([*full, last[: self._used]])

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
