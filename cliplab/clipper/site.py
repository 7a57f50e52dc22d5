"""One of the optimizers that a clipper works at: its hooks, and what it is lent for a step."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cliplab.clipper.holding import stepping_optimizer
from cliplab.clipper.skipping import Gate, Hidden, StepSkipped, is_first_momentum_step, is_torchs

Hook = Callable[["Site", Any, tuple[Any, ...], dict[str, Any]], Any]


class Site:
    """An optimizer with hooks around its step; ``remove()`` leaves it as it was."""

    def __init__(self, given: Any, *, skips: bool, limits: bool = False) -> None:
        stepping = stepping_optimizer(given)
        self.name = type(stepping).__name__
        if (skips or limits) and stepping is not given:
            what, doing = ("skip a step", "skipping") if skips else ("limit the update", "limiting")
            raise ValueError(
                f"cannot {what} of {type(given).__name__}, which may do more than the "
                f"{self.name} that it holds: attach to that one if {doing} its step alone will do"
            )
        if skips and _moves_early(stepping):
            raise ValueError(
                f"cannot skip a step of {self.name}, which has moved before its last gradient is "
                "known: clip it, or choose another optimizer"
            )
        self._optimizer = weakref.ref(stepping)
        self._gate: Gate | None = None
        self._hidden = Hidden()
        self._lent: list[tuple[str, Tensor]] = []
        self._hooks: list[Any] = []

    @property
    def optimizer(self) -> Any:
        """The optimizer; None if it is gone."""
        return self._optimizer()

    @property
    def fused(self) -> bool:
        """Whether it is torch's, and its kernels take ``grad_scale`` and ``found_inf``."""
        optimizer = self.optimizer
        supported = getattr(optimizer, "_step_supports_amp_scaling", False)
        fused = supported and all(group.get("fused") for group in optimizer.param_groups)
        return fused and is_torchs(optimizer)

    def hook(self, before: Hook, after: Hook) -> None:
        """Call these around every step, with the site first."""
        optimizer = self.optimizer
        if not is_torchs(optimizer):
            self._gate = Gate(optimizer)
        self._hooks = [
            optimizer.register_step_pre_hook(functools.partial(before, self)),
            optimizer.register_step_post_hook(functools.partial(after, self)),
        ]

    def remove(self) -> None:
        """Take the hooks off, and give back what was hidden or lent."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._hidden.restore()
        optimizer = self.optimizer
        if optimizer is not None:
            self._take_back(optimizer)
            if self._gate is not None:
                self._gate.remove(optimizer)

    def begins(self, optimizer: Any) -> bool:
        """Whether a hook before a step is that of a step of this optimizer, and the outermost."""
        if optimizer is not self.optimizer:
            return False  # one that shares its hooks with the optimizer that it wraps
        if self._gate is not None and not self._gate.begins():
            return False
        self._hidden.forget()
        self._take_back(optimizer)
        return True

    def ends(self, optimizer: Any) -> bool:
        """Whether a hook after a step ends it; then what was hidden or lent is given back."""
        if optimizer is not self.optimizer or (self._gate is not None and not self._gate.ends()):
            return False
        self._hidden.restore()
        self._take_back(optimizer)
        return True

    def lend(self, name: str, value: Tensor) -> None:
        """Set an attribute of the optimizer for this step."""
        optimizer = self.optimizer
        if not hasattr(optimizer, name):  # else a GradScaler takes it back
            self._lent.append((name, value))
        setattr(optimizer, name, value)

    def forget_flags(self) -> None:
        """Drop what a GradScaler has told of a step that raises; it would leave it for good."""
        for name in ("grad_scale", "found_inf"):
            vars(self.optimizer).pop(name, None)

    def flag(self, skipped: Tensor, dropped: Tensor | None) -> bool:
        """Tell a fused kernel by its flag, without a sync, not to move anything; False for others.

        Neither would do for the very first step of fused SGD with momentum.
        """
        if not self.fused or is_first_momentum_step(self.optimizer):
            return False
        found = skipped.float()
        self.lend("found_inf", found if dropped is None else found.maximum(dropped))
        return True

    def leave_out(self, loss: Any = None) -> None:
        """Keep the optimizer from moving anything: a step from outside torch returns ``loss``."""
        if self._gate is not None:
            raise StepSkipped(loss)
        self._hidden.hide(p for group in self.optimizer.param_groups for p in group["params"])

    def _take_back(self, optimizer: Any) -> None:
        for name, value in self._lent:
            if getattr(optimizer, name, None) is value:
                delattr(optimizer, name)
        self._lent.clear()


def _moves_early(optimizer: Any) -> bool:
    """Whether a step moves weights before its last gradient: a search, or sharpness-aware."""
    names = [kind.__name__ for kind in type(optimizer).__mro__]
    return isinstance(optimizer, torch.optim.LBFGS) or any(name.endswith("SAM") for name in names)
