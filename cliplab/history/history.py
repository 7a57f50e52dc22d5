"""What happened at every step, kept as tensors so that recording never waits for a device."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cliplab.history.columns import ClipReport, Row

if TYPE_CHECKING:
    import pandas

    from cliplab.history.files import Writer
    from cliplab.history.live import Live
    from cliplab.thresholds import Threshold


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
        self._numbers: list[tuple[float, ...]] = []
        self._lr: deque[float | Tensor] = deque()
        self._live: Live | None = None

    def append(self, report: Row, lr: float | Tensor | None) -> None:
        """Record one step: ``[6, n_parts]``, the columns of a report; ``lr`` None: not known.

        Six numbers, the report of one part, are kept as numbers until something is read.
        """
        if isinstance(report, Tensor):
            self._settle()
            self._write(report.unsqueeze(0))
        else:
            self._numbers.append(report)
            if len(self._numbers) >= self._block:
                self._settle()
        self._lr.append(math.nan if lr is None else lr)
        if self._live is not None:
            self._live.update()

    def _settle(self) -> None:
        if self._numbers:
            numbers, self._numbers = self._numbers, []
            self._write(torch.tensor(numbers).unsqueeze(2))

    def _write(self, reports: Tensor) -> None:
        while len(reports):
            if self._used >= self._block:
                self._grow(reports[0])
            count = min(len(reports), self._block - self._used)
            self._blocks[-1][self._used : self._used + count] = reports[:count]
            self._used += count
            reports = reports[count:]

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

    @property
    def rows(self) -> Tensor:
        """All reports as one tensor, ``[steps, 6, n_parts]``; columns as in ``ClipReport``."""
        self._settle()
        if not self._blocks:
            return torch.empty(0, len(ClipReport.fields), 1)
        *full, last = self._blocks
        return torch.cat([*full, last[: self._used]])

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
    def total(self) -> Tensor:
        """Norm of all parts as one vector, ``[steps]``: ``sqrt(sum_i n_i^2)``."""
        norms = self.norm_before
        return norms if norms.ndim == 1 else norms.double().norm(dim=1).to(norms)

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
        squares = self.norm_before.double().square()
        return squares / squares.sum(dim=-1, keepdim=True) if not self.scalar else squares * 0 + 1

    @property
    def excess(self) -> Tensor:
        """Mean of ``max(norm - threshold, 0)`` over the steps with a finite norm."""
        over = (self.norm_before - self.threshold).clamp(min=0)
        return over.where(self.norm_before.isfinite(), math.nan).nanmean(dim=0)

    def summary(self) -> dict[str, Any]:
        """Return what happened in a few plain numbers; NaN where nothing is known.

        ``norm_*`` are of the finite norms of the whole gradient; ``clip_fraction`` and
        ``factor_mean`` are means over steps and parts; a skipped step counts as factor 0;
        ``clip_fraction_by_part`` is there when the history has parts.

        >>> history = History(scalar=True)
        >>> history.append(torch.tensor([4.0, 1, 1, 0.25, 1, 0])[:, None], 0.5)
        >>> history.summary()["effective_lr_mean"]
        0.125
        """
        from cliplab.history.summary import summarise

        return summarise(self)

    def replay(self, policy: float | Threshold) -> History:
        """Return the history that ``policy`` would have made of the recorded raw norms.

        Open loop: with other limits the weights, and so all later norms, would have been others;
        read it for the first steps, or where clipping is rare. ``factor = min(1, limit / size)``;
        steps with a non-finite size are not learnt and count as skipped; the recorded learning
        rates are kept. A policy that needs the weights or the loss cannot be replayed:
        ``ValueError``. The result is on the CPU.
        """
        from cliplab.history.replay import replay

        return replay(self, policy)

    def watch(self, every: float = 1.0) -> Live:
        """Draw the history in a notebook, again at most every ``every`` seconds while it grows.

        Drawing waits for the device and takes at most a tenth of the time. ``close()`` the
        result, or use it as a context manager; then nothing is drawn any more. Outside of a
        notebook nothing is drawn at all. Needs ``cliplab[lab]``.
        """
        from cliplab.history.live import Live

        return Live(self, every)

    def to_frame(self) -> pandas.DataFrame:
        """Return one tidy row per step (and part) as a pandas data frame."""
        import pandas

        from cliplab.history.files import tidy

        columns = tidy(self)
        return pandas.DataFrame(
            {k: c.numpy() if isinstance(c, Tensor) else c for k, c in columns.items()}
        )

    def to_csv(self, path: str | Path) -> None:
        """Write one tidy row per step (and part); ``History.load`` reads it back."""
        from cliplab.history.files import write_csv

        write_csv(self, path)

    def to_tensorboard(self, writer: Writer, tag: str = "clip") -> None:
        """Hand all recorded steps to a ``SummaryWriter`` (or what has its ``add_scalar``)."""
        from cliplab.history.files import write_scalars

        write_scalars(self, writer, tag)

    def save(self, path: str | Path) -> None:
        """Write everything to a file that ``torch.load(weights_only=True)`` reads."""
        from cliplab.history.files import save

        save(self, path)

    @staticmethod
    def load(path: str | Path) -> History:
        """Read a file of ``save``, or a ``.csv`` with at least a column ``norm_before``.

        In a ``.csv`` other columns are those of ``to_frame``; what is missing was not clipped.
        ``OSError`` if there is no such file, ``ValueError`` if it holds something else.
        """
        from cliplab.history.files import load

        return load(path)
