"""A clipper at work on every step of an optimizer."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import may_look
from cliplab.clipper.engine import Engine, Signal
from cliplab.clipper.fast_step import handing_over_pays
from cliplab.norms import scale_
from cliplab.thresholds import as_column


class Attachment:
    """A clipper at work on every step of one optimizer; a context manager, or ``remove()`` it."""

    def __init__(self, engine: Engine, optimizer: torch.optim.Optimizer) -> None:
        if engine.attached:
            raise ValueError("the clipper is already attached to an optimizer: remove() that first")
        group_of = {id(p): i for i, g in enumerate(optimizer.param_groups) for p in g["params"]}
        missing = sum(id(p) not in group_of for p in engine.params)
        if missing:
            raise ValueError(
                f"the optimizer holds only part of the clipper's parameters: {missing} of "
                f"{len(engine.params)} are missing"
            )
        self.engine, self._optimizer = engine, optimizer
        engine.attached = True
        self._group = group_of[id(engine.params[0])]
        takes = all(p.dtype is not torch.float64 for p in engine.params)  # the factor is fp32
        self._pays = takes and handing_over_pays(engine.params)
        self._ids = {id(p) for p in engine.params}
        self._hidden: list[tuple[Tensor, Tensor]] = []
        self._lent: list[tuple[str, Tensor]] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Stop clipping."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._restore()
        self._take_back(self._optimizer)
        self.engine.attached = False

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if any(callable(x) for x in (*args, *kwargs.values())):
            raise RuntimeError("cannot clip gradients computed in a closure inside the step")
        self._hidden.clear()  # of a step that raised: nobody knows whose turn these are now
        self._take_back(optimizer)
        fused = self._is_fused(optimizer)
        hand_over = fused and self._is_whole(optimizer)
        scale, dropped = (
            getattr(optimizer, "grad_scale", None),
            getattr(optimizer, "found_inf", None),
        )
        if scale is not None and not hand_over:
            self._unscale(optimizer, scale)
        lr = optimizer.param_groups[self._group].get("lr", math.nan)
        if isinstance(lr, Tensor):
            lr = float(lr) if may_look(lr) else lr.detach().clone()
        try:
            step = self.engine.step(Signal(lr, scale if hand_over else None, dropped, hand_over))
        except BaseException:
            for name in ("grad_scale", "found_inf"):  # a GradScaler would leave them for good
                if hasattr(optimizer, name):
                    delattr(optimizer, name)
            raise
        if hand_over:
            self._lend_factor(optimizer, as_column(step.factor)[0], scale)
        skips = "skip" in (self.engine.mode, self.engine.nonfinite)
        if skips or (dropped is not None and _is_first_momentum_step(optimizer)):
            self._skip(optimizer, as_column(step.skipped).any(), fused)

    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._restore()
        self._take_back(optimizer)

    def _is_fused(self, optimizer: Any) -> bool:
        """Whether the optimizer's kernels take ``grad_scale`` and ``found_inf``."""
        supported = getattr(optimizer, "_step_supports_amp_scaling", False)
        return supported and all(group.get("fused") for group in optimizer.param_groups)

    def _is_whole(self, optimizer: Any) -> bool:
        """Whether one factor serves all that the optimizer holds."""
        engine = self.engine
        held = [id(p) for group in optimizer.param_groups for p in group["params"]]
        return (
            engine.scope == "global"
            and engine.partition.n_parts == 1
            and engine.nonfinite != "zero"
            and not engine.partition.sharded
            and self._pays
            and set(held) == self._ids
        )

    def _lend_factor(self, optimizer: Any, factor: Tensor, scale: Tensor | None) -> None:
        """Let the fused kernel divide by ``scale / factor``."""
        if scale is None and may_look(factor) and float(factor) == 1.0:
            return
        self._lend(optimizer, "grad_scale", (1.0 if scale is None else scale) / factor.float())

    def _skip(self, optimizer: Any, skipped: Tensor, fused: bool) -> None:
        """Keep the optimizer from moving anything: fused kernels by their flag, without a sync."""
        if fused and not self.engine.partition.sharded and not _is_first_momentum_step(optimizer):
            dropped = getattr(optimizer, "found_inf", None)
            flag = skipped.float()
            self._lend(optimizer, "found_inf", flag if dropped is None else flag.maximum(dropped))
        elif bool(skipped):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._hidden.append((p, p.grad))
                        p.grad = None

    def _lend(self, optimizer: Any, name: str, value: Tensor) -> None:
        if not hasattr(optimizer, name):  # else a GradScaler takes it back
            self._lent.append((name, value))
        setattr(optimizer, name, value)

    def _take_back(self, optimizer: Any) -> None:
        for name, value in self._lent:
            if getattr(optimizer, name, None) is value:
                delattr(optimizer, name)
        self._lent.clear()

    def _restore(self) -> None:
        for p, grad in self._hidden:
            if p.grad is None:
                p.grad = grad
        self._hidden.clear()

    def _unscale(self, optimizer: Any, scale: Tensor) -> None:
        """A fused optimizer gets scaled gradients and the scale: bring them to true units."""
        for group in optimizer.param_groups:
            grads = [p.grad for p in group["params"] if p.grad is not None]
            scale_(grads, 1.0 / scale)  # fp16 cannot hold the usual scale, its inverse may do
        optimizer.grad_scale = torch.ones_like(scale)


def _is_first_momentum_step(optimizer: Any) -> bool:
    """Fused SGD leaves its momentum uninitialised when the very first step is flagged."""
    return isinstance(optimizer, torch.optim.SGD) and any(
        group["momentum"] and p.grad is not None and "momentum_buffer" not in optimizer.state[p]
        for group in optimizer.param_groups
        for p in group["params"]
    )
