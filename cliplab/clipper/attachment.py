"""A clipper at work on every step of an optimizer."""

from __future__ import annotations

import math
import weakref
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import may_look
from cliplab.clipper.amp import scale_and_flag
from cliplab.clipper.engine import Engine, Signal
from cliplab.clipper.fast_step import handing_over_pays
from cliplab.clipper.holding import Holding, stepping_optimizer
from cliplab.clipper.skipping import Gate, Hidden, StepSkipped, is_first_momentum_step, is_torchs
from cliplab.norms import total_norm
from cliplab.thresholds import as_column


class Attachment:
    """A clipper at work on every step of one optimizer; a context manager, or ``remove()`` it."""

    def __init__(self, engine: Engine, optimizer: Any) -> None:
        if engine.attached:
            raise ValueError("the clipper is already attached to an optimizer: detach() it first")
        stepping = stepping_optimizer(optimizer)
        self.engine, self._optimizer = engine, weakref.ref(stepping)
        self._name = type(stepping).__name__
        self._holding = Holding(engine.params, stepping)
        self._torchs = is_torchs(stepping)
        self._skips = "skip" in (engine.mode, engine.nonfinite)
        if self._skips and stepping is not optimizer:
            raise ValueError(
                f"cannot skip a step of {type(optimizer).__name__}, which may do more than the "
                f"{self._name} that it holds: attach to that one if skipping its step alone will do"
            )
        takes = all(p.dtype is not torch.float64 for p in engine.params)  # the factor is fp32
        self._pays = takes and handing_over_pays(engine.params)
        self._hidden = Hidden()
        self._lent: list[tuple[str, Tensor]] = []
        self._gate = None if self._torchs else Gate(stepping)
        self._hooks = [
            stepping.register_step_pre_hook(self._before),
            stepping.register_step_post_hook(self._after),
        ]
        engine.attached = self

    def remove(self) -> None:
        """Stop clipping."""
        if not self._hooks:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._hidden.restore()
        optimizer = self._optimizer()
        if optimizer is not None:
            self._take_back(optimizer)
            if self._gate is not None:
                self._gate.remove(optimizer)
        self.engine.attached = None

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"Attachment({self._name}, {'at work' if self._hooks else 'removed'})"

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._is_mine(optimizer):
            return  # one that shares its hooks with the optimizer that it wraps
        if self._gate is not None and not self._gate.begins():
            return
        self._hidden.forget()
        self._take_back(optimizer)
        if any(callable(x) for x in (*args[1:], *kwargs.values())):
            raise RuntimeError(
                "cannot clip gradients computed in a closure inside the step: detach(), and call "
                "clip() in the closure, after backward()"
            )
        self._holding.follow(optimizer)
        if not self._only_makes_state(optimizer):
            self._clip(optimizer, kwargs)

    def _is_mine(self, optimizer: Any) -> bool:
        return optimizer is self._optimizer()

    def _after(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._hidden.restore()
        self._take_back(optimizer)

    def _only_makes_state(self, optimizer: Any) -> bool:
        """Whether a step is the one that ``torch.distributed.checkpoint`` takes to make the state.

        Then there is none yet, and every learning rate and every gradient is 0. A warm-up from a
        learning rate of 0 begins so, too, but has gradients: only then is a value looked at.
        """
        if optimizer.state:
            return False
        for group in optimizer.param_groups:
            lr = group.get("lr")
            if lr is None or (isinstance(lr, Tensor) and not may_look(lr)) or float(lr) != 0:
                return False
        grads = [grad for grad in self.engine.partition.read() if grad is not None]
        return float(total_norm(grads)) == 0

    def _clip(self, optimizer: Any, kwargs: dict[str, Any]) -> None:
        """Clip what the step is about to take, and see to it that it takes that or nothing."""
        fused = self._torchs and _is_fused(optimizer)
        hand_over = fused and self._is_whole()
        scale, dropped = scale_and_flag(optimizer, kwargs)
        lr = optimizer.param_groups[self._holding.group].get("lr", math.nan)
        if isinstance(lr, Tensor):
            lr = float(lr) if may_look(lr) else lr.detach().clone()
        try:
            step = self.engine.step(Signal(lr, scale, dropped, hand_over))
        except BaseException:
            for name in ("grad_scale", "found_inf"):  # a GradScaler would leave them for good
                vars(optimizer).pop(name, None)
            raise
        if hand_over:
            self._lend_factor(optimizer, as_column(step.factor)[0], scale)
        if self._skips and fused and self._heeds_flag(optimizer):
            found = as_column(step.skipped).any().float()
            self._lend(optimizer, "found_inf", found if dropped is None else found.maximum(dropped))
        elif self._skips or (dropped is not None and is_first_momentum_step(optimizer)):
            self._leave_out(optimizer, as_column(step.skipped).any())

    def _is_whole(self) -> bool:
        """Whether one factor serves all that the optimizer holds."""
        engine = self.engine
        return (
            engine.scope == "global"
            and engine.partition.n_parts == 1
            and engine.nonfinite != "zero"
            and not engine.partition.sharded
            and self._pays
            and self._holding.whole
        )

    def _lend_factor(self, optimizer: Any, factor: Tensor, scale: Tensor | None) -> None:
        """Let the fused kernel divide by ``scale / factor``."""
        if scale is None and may_look(factor) and float(factor) == 1.0:
            return
        self._lend(optimizer, "grad_scale", (1.0 if scale is None else scale) / factor.float())

    def _heeds_flag(self, optimizer: Any) -> bool:
        """Whether a fused kernel, told by its flag and without a sync, moves nothing at all."""
        return not self.engine.partition.sharded and not is_first_momentum_step(optimizer)

    def _leave_out(self, optimizer: Any, skipped: Tensor) -> None:
        """Keep the optimizer from moving anything."""
        if not bool(skipped):
            return
        if self._gate is not None:
            raise StepSkipped
        self._hidden.hide(optimizer)

    def _lend(self, optimizer: Any, name: str, value: Tensor) -> None:
        if not hasattr(optimizer, name):  # else a GradScaler takes it back
            self._lent.append((name, value))
        setattr(optimizer, name, value)

    def _take_back(self, optimizer: Any) -> None:
        for name, value in self._lent:
            if getattr(optimizer, name, None) is value:
                delattr(optimizer, name)
        self._lent.clear()


def _is_fused(optimizer: Any) -> bool:
    """Whether the optimizer's kernels take ``grad_scale`` and ``found_inf``."""
    supported = getattr(optimizer, "_step_supports_amp_scaling", False)
    return supported and all(group.get("fused") for group in optimizer.param_groups)
