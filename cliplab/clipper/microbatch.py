"""Micro-batches: what each backward pass adds is clipped before it is accumulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple
from weakref import WeakSet

import torch
from torch import Tensor
from torch.amp import GradScaler

from cliplab.checks import described, may_look
from cliplab.clipper.engine import NO_SIGNAL, Engine, Signal
from cliplab.clipper.handle import refuse_at_work
from cliplab.norms import dense, total_norm
from cliplab.thresholds import as_column

_OPEN: WeakSet[Engine] = WeakSet()  # those with a micro-batch at work


class Aside(NamedTuple):
    """A gradient that waits for its increment.

    ``copy`` holds the values of a view: the reducer of DDP writes the next gradient into the same
    memory (``gradient_as_bucket_view``).
    """

    grad: Tensor
    copy: Tensor | None


class Microbatch:
    """A context manager: the gradient that comes inside is clipped, then added to what was there.

    ``step`` is what was done to it, None before; see ``Clipper.microbatch``.
    """

    def __init__(self, engine: Engine, scaler: GradScaler | None = None) -> None:
        if scaler is not None and not isinstance(scaler, GradScaler):
            raise ValueError(f"scaler must be a torch.amp.GradScaler, got {described(scaler)}")
        self._engine = engine
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._aside: list[Aside | None] = []

    def __enter__(self) -> Microbatch:
        engine = self._engine
        refuse_at_work(engine, "microbatch()")
        if engine in _OPEN:
            raise RuntimeError(
                "a microbatch() of this clipper is open already: close it before the next one, "
                "each holds one backward pass"
            )
        _OPEN.add(engine)
        self._aside = [None if p.grad is None else _aside(p.grad) for p in engine.params]
        for p in engine.params:
            p.grad = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _OPEN.discard(self._engine)
        if kind is not None:
            self._put_back()
            return
        try:
            kept = self._clip()
        except BaseException:
            self._put_back()
            raise
        if kept:
            self._add()
        else:
            self._put_back()

    def _clip(self) -> bool:
        """Clip the increment, and say whether it is to be added.

        On an accelerator nobody looks: there an increment to be dropped is added as zeros.
        """
        engine = self._engine
        if self._scaler is None:
            dropped, step = None, engine.step(NO_SIGNAL)
        else:
            dropped = ~total_norm(self._increments()).isfinite()
            step = engine.step(Signal(scale=_scale(self._scaler), dropped=dropped))
            self._show_(dropped)
        if "skip" not in (engine.mode, engine.nonfinite):
            return True
        skipped = as_column(step.skipped).any()
        if dropped is not None:
            skipped = skipped & ~dropped.to(skipped.device)
        if may_look(skipped):
            return not bool(skipped)
        _fill_(self._increments(), skipped, 0.0)
        return True

    def _increments(self) -> list[Tensor]:
        return [grad for grad in self._engine.partition.read() if grad is not None]

    def _show_(self, dropped: Tensor) -> None:
        """See to it that the scaler finds an overflow, whatever clipping has made of it."""
        if not may_look(dropped) or bool(dropped):
            _fill_([t for t in self._increments() if t.numel()][:1], dropped, math.nan)

    @torch.no_grad()
    def _add(self) -> None:
        """Add the increments in place to what was there, which stays the tensor that it is."""
        sums: list[tuple[Tensor, Tensor]] = []
        for p, aside in zip(self._engine.params, self._aside, strict=True):
            if aside is None:
                continue
            new, p.grad = p.grad, aside.grad
            if new is None:
                continue
            if aside.copy is not None and new.data_ptr() == aside.grad.data_ptr():
                new = aside.copy  # the increment lies there already
            if _is_strided(new) and not _is_strided(aside.grad):  # a sparse sum takes no dense one
                p.grad = new.add_(aside.grad)
            else:
                sums.append((aside.grad, new))
        self._aside = []
        _add_(sums)

    @torch.no_grad()
    def _put_back(self) -> None:
        """Have the gradients that were there before, and none of the increment."""
        for p, aside in zip(self._engine.params, self._aside, strict=True):
            p.grad = None if aside is None else aside.grad
            if aside is not None and aside.copy is not None:
                aside.grad.copy_(aside.copy)
        self._aside = []


def _aside(grad: Tensor) -> Aside:
    return Aside(grad, grad.clone() if grad._is_view() else None)


def _scale(scaler: GradScaler) -> Tensor:
    scale = scaler._get_scale_async()
    if scale is None:
        raise RuntimeError(
            "the GradScaler has not scaled any loss yet: inside microbatch(scaler=scaler) call "
            "scaler.scale(loss).backward()"
        )
    return scale


def _add_(sums: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Add the second of each pair to the first, plain ones in few calls."""
    plain = [all(type(t) is Tensor and _is_strided(t) for t in pair) for pair in sums]
    few = [pair for pair, is_plain in zip(sums, plain, strict=True) if is_plain]
    if few:
        torch._foreach_add_([held for held, _ in few], [new for _, new in few])
    for (held, new), is_plain in zip(sums, plain, strict=True):
        if not is_plain:
            held.add_(new)


def _is_strided(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided


@torch.no_grad()
def _fill_(tensors: Sequence[Tensor], flag: Tensor, value: float) -> None:
    """Fill tensors where a scalar flag is set."""
    for entries in dense(tensors):
        entries.masked_fill_(flag.to(entries.device), value)
