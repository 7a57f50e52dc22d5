"""The store of a history: steps kept as tensors, so that recording never waits."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor

from cliplab.checks import check_count
from cliplab.history.blocks import NUMBER, Block, Numbers, as_norm, unknown
from cliplab.history.counts import EVENTS, NAMES, check_counts, tally
from cliplab.thresholds import AnyStep, Step, as_column

COLUMNS = len(Step._fields)
LAST_STEP = 1 << 62  # no step has a higher number
WAITING = 72  # bytes of a step that waits as numbers: columns, rate, update, and arrays' slack


class Follower(Protocol):
    """What is told of every step that is recorded."""

    def update(self) -> None:
        """Look again."""

    def close(self) -> None:
        """Give way to another."""


class Store:
    """Steps, oldest first, in blocks on the device of the gradients.

    All that it holds, what belongs to a step and the steps that wait to be written included, takes
    at most ``max_bytes`` (or one step); then it forgets the oldest steps (``first_step`` says which
    are gone). ``labels`` name the parts.
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
        self.forgotten = 0  # steps
        self._max_bytes = check_count("max_bytes", max_bytes)
        self._patience = max(1, min(self._block, max_bytes // (4 * WAITING)))
        self._blocks: deque[Block] = deque()
        self._used = self._block  # rows used of the last block
        self._events: Tensor | None = None  # in forgotten steps and in tallied blocks
        self._tallied = 0  # of the blocks, from the oldest on
        self._before = dict.fromkeys(NAMES, 0)  # counts from elsewhere
        self._waiting: array[float] = array("d")  # steps of numbers: six columns and the rate
        self._waiting_updates: array[float] = array("d")  # of the first of them; NaN: not measured

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"follower": None}  # a copy is drawn nowhere

    def empty(self) -> Self:
        """A store like this one without steps, to begin where this one does."""
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
            if lr is not None:
                block.lrs.put(self._used, lr)
            self._used += 1
        if self.follower is not None:
            self.follower.update()

    def put_update(self, norm: float | Tensor) -> None:
        """Note how large the update was that followed the last recorded step: ``>= 0``, or NaN.

        A tensor that lies on an accelerator is kept there, and not waited for. ``RuntimeError``
        if no step is recorded, ``ValueError`` for what is no norm.
        """
        if not len(self):
            raise RuntimeError("put_update() belongs to the last recorded step, and there is none")
        known = as_norm(norm)
        if self._waiting and not isinstance(known, Tensor):
            while len(self._waiting_updates) < len(self._waiting) // (COLUMNS + 1):
                self._waiting_updates.append(math.nan)
            self._waiting_updates[-1] = known
        else:
            self._settle()
            self._updates_of_last_block().put(self._used - 1, known)

    def extend(self, rows: Tensor, lrs: array[float], updates: array[float] | None = None) -> None:
        """Record steps, ``[steps, 6, n_parts]``, their learning rates and norms of updates."""
        self._settle()
        done = 0
        while done < len(rows):
            self._make_room(rows[0])
            at, count = self._used, min(len(rows) - done, self._block - self._used)
            block, new = self._blocks[-1], slice(done, done + count)
            block.rows[at : at + count] = rows[new]
            block.lrs.numbers[at : at + count] = lrs[new]
            if updates:
                self._updates_of_last_block().numbers[at : at + count] = updates[new]
            self._used += count
            done += count

    def rewind(self, step: int) -> None:
        """Go back to before the step of this number: what was recorded from there on is dropped.

        All is dropped where neither a recorded step nor the next one has the number. ``counts``
        stay: they are of all steps ever recorded.
        """
        keep = step - self.first_step
        keep = keep if 0 <= keep <= len(self) else 0
        if keep < len(self):
            rows, counts = self.rows, self.counts
            lrs, updates = (array("d", c[:keep].tolist()) for c in (self.lr, self.update_norm))
            self._blocks.clear()
            self._used, self._tallied, self._events = self._block, 0, None
            self.extend(rows[:keep], lrs, updates)
            self.count_from(counts)
        self.first_step = step - keep

    def _settle(self) -> None:
        """Write the steps that wait as numbers."""
        if self._waiting:
            waiting, self._waiting = self._waiting, array("d")
            updates, self._waiting_updates = self._waiting_updates, array("d")
            steps = torch.frombuffer(waiting, dtype=torch.float64).reshape(-1, COLUMNS + 1)
            if updates:
                updates.extend(unknown(len(steps) - len(updates)))
            self.extend(steps[:, :COLUMNS, None].float(), waiting[COLUMNS :: COLUMNS + 1], updates)

    def _make_room(self, row: Tensor, lr: float | Tensor | None = None) -> None:
        """Have room for such a row: in a new block, for which old ones may have to go."""
        if self._used < self._block:
            return
        size = row.numel() * row.element_size()
        size += 2 * NUMBER if isinstance(lr, Tensor) else NUMBER
        if self._blocks and self._blocks[-1].updates is not None:
            size += self._blocks[-1].updates.size
        if not self._blocks:
            self._block = max(1, min(self._block, self._limit // (2 * size)))
        self._forget(self._limit // (self._block * size) - 1)
        with torch.inference_mode(False):  # else no later step could be written to it
            rows = row.new_empty((self._block, *row.shape))
        self._blocks.append(Block(rows))
        self._used = 0

    @property
    def _limit(self) -> int:
        """Bytes of all blocks."""
        return self._max_bytes - WAITING * self._patience

    def _forget(self, most: int) -> None:
        """Forget the oldest blocks, until there are at most so many."""
        while len(self._blocks) > max(most, 0):
            self._tally(1)
            self._tallied -= 1
            self._blocks.popleft()
            self.first_step += self._block
            self.forgotten += self._block

    def _updates_of_last_block(self) -> Numbers:
        """Room for the norms of its updates, for which old blocks may have to go."""
        block = self._blocks[-1]
        if block.updates is None:
            block.updates = Numbers(unknown(self._block))
            size = block.rows[0].nbytes + block.lrs.size + 2 * NUMBER
            self._forget(max(1, self._limit // (self._block * size)))
        return block.updates

    @property
    def counts(self) -> dict[str, int]:
        """Steps ever recorded, and in how many any part was clipped, skipped or not finite.

        Forgotten steps are counted, and those of the state that a clipper has loaded. Reading it
        waits for the device.

        >>> history = Store(scalar=True, max_bytes=1)
        >>> for size in (0.5, 4.0, 8.0):
        ...     history.append(Step(size, 1.0, 1.0, 1.0, float(size > 1), 0.0), None)
        >>> len(history), history.counts
        (1, {'steps': 3, 'clipped': 2, 'skipped': 0, 'nonfinite': 0})
        """
        events = [0] * len(EVENTS)
        if len(self):
            last = tally(self._settled()[-1].rows[: self._used])
            self._tally(len(self._blocks) - 1)
            events = (last if self._events is None else self._events + last).tolist()
        here = {"steps": self.forgotten + len(self), **dict(zip(EVENTS, events, strict=True))}
        return {name: self._before[name] + count for name, count in here.items()}

    def _tally(self, blocks: int) -> None:
        """See to it that so many of the oldest blocks are tallied, in all."""
        for block in islice(self._blocks, self._tallied, blocks):
            events = tally(block.rows)
            self._events = events if self._events is None else self._events + events
        self._tallied = max(self._tallied, blocks)

    def count_from(self, counts: Mapping[str, int]) -> None:
        """Make ``counts`` what is given, and go on from there; ``ValueError`` for what is none."""
        given, now = check_counts(counts), self.counts
        for name in given:
            self._before[name] += given[name] - now[name]

    def label(self, part: int) -> str:
        """Name of a part."""
        return self.labels[part] if part < len(self.labels) else f"part {part}"

    @property
    def part_names(self) -> list[str]:
        """Names of all parts."""
        self._settle()
        n_parts = self._blocks[-1].rows.shape[-1] if self._blocks else 1
        return [self.label(i) for i in range(n_parts)]

    def __len__(self) -> int:
        written = (len(self._blocks) - 1) * self._block + self._used if self._blocks else 0
        return written + len(self._waiting) // (COLUMNS + 1)

    @property
    def rows(self) -> Tensor:
        """All steps as one tensor, ``[steps, 6, n_parts]``; see ``columns`` for names."""
        if not len(self):
            return torch.empty(0, COLUMNS, 1, dtype=torch.float32, device="cpu")
        return self._joined([block.rows for block in self._settled()])

    @property
    def lr(self) -> Tensor:
        """Learning rates ``[steps]``, NaN where the clipper was not attached to an optimizer.

        In double precision, as they were given, and on the CPU.
        """
        return self._joined([block.lrs.read() for block in self._settled()])

    @property
    def update_norm(self) -> Tensor:
        """Norms of the updates that followed ``[steps]``, NaN where they were not measured.

        In double precision, as they were given, and on the CPU.
        """
        return self._joined([block.update_norms() for block in self._settled()])

    def pieces(self, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows, learning rates and norms of updates from a position on, as they lie in the blocks.

        What lies before it is not read, and rows are not copied.
        """
        blocks, whole = self._settled(), self._block
        for number in range(first // whole, len(blocks)):
            block = blocks[number]
            end = self._used if number == len(blocks) - 1 else whole
            used = slice(max(0, first - number * whole), end)
            yield block.rows[used], block.lrs.read()[used], block.update_norms()[used]

    def _settled(self) -> deque[Block]:
        """The blocks, when nothing waits any more."""
        self._settle()
        return self._blocks

    def _joined(self, pieces: Sequence[Tensor]) -> Tensor:
        """Pieces of the blocks, without what the last one has not used yet."""
        if not pieces:
            return torch.empty(0, dtype=torch.float64, device="cpu")
        *full, last = pieces
        return torch.cat([*full, last[: self._used]])
