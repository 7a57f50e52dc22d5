"""Leaving a step of an optimizer out."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor


class StepSkipped(Exception):
    """Raised before a step that is not to be taken; the ``Gate`` around the step expects it.

    ``loss``: what a closure has returned, which the step returns then.
    """

    def __init__(self, loss: Any = None) -> None:
        super().__init__()
        self.loss = loss


class Gate:
    """A way around the step of an optimizer from outside torch, put onto that one optimizer.

    Step hooks alone do not do for these. They cannot keep a step from being taken, and not every
    optimizer stays as it is in a step without gradients: some count in groups or in themselves.
    And they run once for every class whose ``step`` calls that of its base.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._entered, self._depth = False, 0
        self._before = vars(optimizer).get("step")
        taken = optimizer.step

        @functools.wraps(getattr(taken, "__func__", taken))
        def step(_: Any, *args: Any, **kwargs: Any) -> Any:
            if self._entered:
                return taken(*args, **kwargs)
            self._entered = True
            try:
                return taken(*args, **kwargs)
            except StepSkipped as skipped:
                return skipped.loss
            finally:
                self._entered, self._depth = False, 0

        self._step = MethodType(step, optimizer)  # a learning rate scheduler wants a method
        optimizer.step = self._step  # type: ignore[method-assign]

    def begins(self) -> bool:
        """Whether a hook before a step is the first one of the step that the gate let in."""
        if not self._entered:
            raise RuntimeError(
                "the optimizer's step() was taken hold of before attach, which now cannot see "
                "where a step begins: attach first, then hand the optimizer on"
            )
        self._depth += 1
        return self._depth == 1

    def ends(self) -> bool:
        """Whether a hook after a step is the last one of the step that the gate let in."""
        self._depth -= 1
        return self._depth == 0

    def remove(self, optimizer: torch.optim.Optimizer) -> None:
        """Put back the step, unless others have gone around it since: they go on through it."""
        if vars(optimizer).get("step") is not self._step:
            return
        del optimizer.step
        if self._before is not None:
            optimizer.step = self._before  # type: ignore[method-assign]


class Hidden:
    """Gradients taken away for one step of a torch optimizer, which then moves nothing."""

    def __init__(self) -> None:
        self._grads: list[tuple[Tensor, Tensor]] = []

    def hide(self, params: Iterable[Tensor]) -> None:
        """Take away the gradients of these."""
        for p in params:
            if p.grad is not None:
                self._grads.append((p, p.grad))
                p.grad = None

    def restore(self) -> None:
        """Give them back."""
        for p, grad in self._grads:
            if p.grad is None:
                p.grad = grad
        self._grads.clear()

    def forget(self) -> None:
        """Drop those of a step that raised: nobody knows whose turn these are now."""
        self._grads.clear()


def is_torchs(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the step is one of ``torch.optim``: moved by nothing but gradients, not nested."""
    return type(optimizer).step.__module__.startswith("torch.optim.")


def is_first_momentum_step(optimizer: torch.optim.Optimizer) -> bool:
    """Fused SGD leaves its momentum uninitialised when the very first step is flagged."""
    return isinstance(optimizer, torch.optim.SGD) and any(
        group["momentum"]
        and p.grad is not None
        and "momentum_buffer" not in optimizer.state.get(p, ())
        for group in optimizer.param_groups
        for p in group["params"]
    )
