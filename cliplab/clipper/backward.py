"""Clipping inside the backward pass: every gradient as soon as it is there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from cliplab.clipper.engine import Engine
from cliplab.clipper.handle import Handle, refuse_at_work
from cliplab.clipper.share import PolicyShare
from cliplab.history import History
from cliplab.norms import combine
from cliplab.parts import Gradients, Hand, Partition, RowParts, TensorParts
from cliplab.thresholds import AnyStep, Step, as_column


class InBackward(Handle):
    """A clipper at work in every backward pass; a context manager, or ``remove()`` it.

    Every parameter has an engine of its own, whose policy is its share of the clipper's.
    """

    where = "at work in the backward pass"

    def __init__(self, engine: Engine) -> None:
        refuse_at_work(engine, "clip_in_backward()")
        _check(engine)
        self._engine = engine
        self._own = _engines(engine)
        self._done: dict[int, AnyStep] = {}
        self._task: int | None = None  # number of the backward pass that is under way
        self._hooks = [
            cast("Any", engine.params[i]).register_post_accumulate_grad_hook(
                partial(self._arrived, i)
            )
            for i in self._own
            if engine.params[i].requires_grad
        ]
        engine.attached = self

    def remove(self) -> None:
        """Stop clipping."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._finish()
        if self._engine.attached is self:
            self._engine.attached = None

    def __repr__(self) -> str:
        state = f"{len(self._hooks)} parameters, at work" if self._hooks else "removed"
        return f"InBackward({state})"

    def _arrived(self, i: int, p: Tensor) -> None:
        """Clip a gradient that has just been accumulated."""
        if p.grad is None:
            raise RuntimeError(
                "a hook on a parameter took its gradient before it was clipped: call "
                "clip_in_backward() first, and register what steps the optimizer afterwards"
            )
        task = torch._C._current_graph_task_id()
        if task != self._task or i in self._done:
            self._finish()  # a pass that raised has left it open, or this is a part of another
            self._begin(task)
        try:
            self._done[i] = self._step(i)
        except BaseException:
            self._finish()
            raise

    def _begin(self, task: int) -> None:
        self._task = task
        if task != -1:  # -1: somebody calls the hook, no pass is under way
            torch.autograd.Variable._execution_engine.queue_callback(self._finish)

    def _step(self, i: int, tensors: Gradients | None = None) -> AnyStep:
        engine, own = self._engine, self._own[i]
        own.steps, own._loss = engine.steps, engine._loss
        return own.step(tensors=tensors)

    def _finish(self) -> None:
        """Record the pass as one step; whose gradient has not come is not active."""
        done, self._done, self._task = self._done, {}, None
        if not done:
            return
        engine = self._engine
        with torch.no_grad():
            steps = [done[i] if i in done else self._step(i, [None]) for i in self._own]
            row = self._of_elements(steps) if engine.scope == "element" else _joined(steps)
            engine.history.append(row, None)
            engine.steps += 1
            engine._loss = None

    def _of_elements(self, steps: Sequence[AnyStep]) -> Step[Tensor]:
        """The step of all entries: that of the largest, and the factor of the L2 norms."""
        runs = cast("TensorParts", self._engine.partition).runs
        columns = [torch.split(column, runs) for column in _joined(steps)]
        row = Step(*(torch.stack([part.amax() for part in column]) for column in columns))
        norms = zip(*(own.norms for own in self._own.values()), strict=True)
        before, after = (combine(torch.stack(each), 2.0) for each in norms)
        usable = (before > 0) & before.isfinite()
        factor = torch.where(usable, after / before, 1.0).to(row.factor)
        return row._replace(factor=factor.expand_as(row.factor))


class OwnEngine(Engine):
    """The engine of one parameter, which answers as another one does."""

    def __init__(self, engine: Engine, partition: Partition, parts: slice) -> None:
        super().__init__(
            partition,
            cast("Any", PolicyShare(engine.policy, parts)),
            cast("Any", NoHistory(engine.history, parts)),
            engine.choices,
        )
        self._dtype, self._respond, self._watch = engine._dtype, engine._respond, engine._watch
        hand = Hand(f"clip_in_backward() of a clipper ({type(engine.policy).__name__})")
        self._hands = (None, None) if engine._hands[1] is None else (hand, hand)
        self.norms: list[Tensor] = []  # of the tensor before and after, where entries are clamped

    def _is_within(self, step: AnyStep) -> bool:
        return False  # the norms of the pass need those of every tensor

    def _norm(self, grads: Gradients) -> Tensor:
        norm = super()._norm(grads)
        self.norms = [*self.norms[-1:], norm]
        return norm


class NoHistory:
    """Where a parameter's step is not recorded: the pass is."""

    def __init__(self, history: History, parts: slice) -> None:
        self.scalar = history.scalar
        self._history, self._first = history, parts.start

    def __len__(self) -> int:
        return 1  # not the first step, at which a missing gradient would be warned of

    def append(self, step: AnyStep, lr: float | Tensor | None) -> None:
        """Leave it to the pass."""

    def label(self, part: int) -> str:
        """Name of one of the parameter's parts."""
        return self._history.label(self._first + part)


class OneOfMany(TensorParts):
    """One tensor, measured as it is among others."""

    def sizes(self, tensors: Gradients, norm_type: float) -> Tensor:
        """Size ``[1]`` of a tensor that is not sharded."""
        return self.gather(self.cells(tensors, norm_type), norm_type)


def _engines(engine: Engine) -> dict[int, OwnEngine]:
    """The engine of every parameter that has parts, by the parameter's number."""
    whole = engine.partition
    counts = whole.counts if isinstance(whole, RowParts) else [1] * len(whole.params)
    firsts = list(accumulate(counts, initial=0))
    if engine.scope == "element":
        firsts = [
            part for part, run in enumerate(cast("TensorParts", whole).runs) for _ in range(run)
        ]
    return {
        i: OwnEngine(engine, _part(whole, i), slice(firsts[i], firsts[i] + count))
        for i, count in enumerate(counts)
        if count
    }


def _part(whole: Partition, i: int) -> Partition:
    """One tensor's parts."""
    part: Partition
    if isinstance(whole, RowParts):
        part = RowParts([whole.params[i]], [whole.views[i]])
    else:
        part = (OneOfMany if whole.n_parts > 1 else TensorParts)([whole.params[i]], [1])
    part.names, part.device = [whole.names[i]], whole.device
    return part


def _check(engine: Engine) -> None:
    """``ValueError`` for what cannot be done to one gradient without the others."""
    what = "clip_in_backward() clips every gradient before the others are there"
    if engine.scope not in ("tensor", "unit", "element"):
        raise ValueError(f'{what}: it needs scope tensor, unit or element, got "{engine.scope}"')
    if "skip" in (engine.mode, engine.nonfinite):
        name = "mode" if engine.mode == "skip" else "nonfinite"
        raise ValueError(f'{what}, when steps may have been taken: {name} "skip" is too late')
    if engine.scope == "element" and engine.nonfinite == "zero":
        raise ValueError(f'{what}: nonfinite "zero" at scope "element" would zero them, too')
    if engine.scope == "element" and not engine.policy.stateless:
        raise ValueError(f"{what}, from all of which {engine.policy!r} learns")
    for p in engine.params:
        if p.requires_grad and not p.is_leaf:
            raise ValueError(f"{what}: it needs leaves, got a tensor that {p.grad_fn} computes")


def _joined(steps: Sequence[AnyStep]) -> Step[Tensor]:
    """The steps of all parts as one."""
    return Step(*(torch.cat(list(map(as_column, column))) for column in zip(*steps, strict=True)))
