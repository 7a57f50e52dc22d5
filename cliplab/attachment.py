"""A clipper at work on every step of an optimizer."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cliplab.norms import scale_

if TYPE_CHECKING:
    from cliplab.clipper import Clipper


class Attachment:
    """A clipper at work on every step of one optimizer; a context manager, or ``remove()`` it."""

    def __init__(self, clipper: Clipper, optimizer: torch.optim.Optimizer) -> None:
        if clipper.attached:
            raise ValueError("the clipper is already attached to an optimizer: remove() that first")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = sum(id(p) not in held for p in clipper.params)
        if missing:
            raise ValueError(
                f"the optimizer holds only part of the clipper's parameters: {missing} of "
                f"{len(clipper.params)} are missing"
            )
        self.clipper = clipper
        clipper.attached = True
        first = clipper.params[0]
        self._group = next(
            i
            for i, group in enumerate(optimizer.param_groups)
            if any(p is first for p in group["params"])
        )
        self._hidden: list[tuple[Tensor, Tensor]] = []
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def remove(self) -> None:
        """Stop clipping."""
        for hook in self._hooks:
            hook.remove()
        self._restore()
        self.clipper.attached = False

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if any(callable(x) for x in (*args, *kwargs.values())):
            raise RuntimeError("cannot clip gradients computed in a closure inside the step")
        self._restore()  # left over when the last step itself raised
        dropped = getattr(optimizer, "found_inf", None)
        self._unscale(optimizer)
        lr = float(optimizer.param_groups[self._group]["lr"])
        report = self.clipper._clip(None, lr, dropped)
        may_skip = self.clipper.mode == "skip" or self.clipper.nonfinite == "skip"
        if may_skip and bool(report.skipped.any()):
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._hidden.append((p, p.grad))
                        p.grad = None

    def _after(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for p, grad in self._hidden:
            if p.grad is None:
                p.grad = grad
        self._hidden.clear()

    def _unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """A fused optimizer gets scaled gradients and the scale: bring them to true units."""
        scale = getattr(optimizer, "grad_scale", None)
        if scale is not None:
            for group in optimizer.param_groups:
                grads = [p.grad for p in group["params"] if p.grad is not None]
                scale_(grads, 1.0 / scale)  # fp16 cannot hold the usual scale, its inverse may do
            optimizer.grad_scale = torch.ones_like(scale)  # type: ignore[attr-defined]
