"""Clip now, and keep a step that is to be skipped from moving anything, for who owns the step."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch

from cliplab.checks import described
from cliplab.clipper.engine import Engine
from cliplab.clipper.handle import refuse_at_work
from cliplab.clipper.skipping import Hidden
from cliplab.history import ClipReport
from cliplab.thresholds import as_column


class Guard:
    """A clip that was made, and the gradients that it hides; a context manager, or ``close()`` it.

    ``report`` is the ``ClipReport``, ``skipped`` whether gradients are hidden.
    """

    def __init__(self, engine: Engine, optimizer: torch.optim.Optimizer | None = None) -> None:
        refuse_at_work(engine, "guard()")
        held = engine.params if optimizer is None else _held(optimizer)
        self._hidden = Hidden()
        step = engine.step()
        self.report = ClipReport(step, engine.history.scalar)
        self.skipped = "skip" in (engine.mode, engine.nonfinite) and bool(
            as_column(step.skipped).any()
        )
        if self.skipped:
            self._hidden.hide(held)

    def close(self) -> None:
        """Give back what is hidden, but where there is a new gradient by now."""
        self._hidden.restore()

    def __enter__(self) -> Guard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Guard({self.report!r}{', gradients hidden' if self.skipped else ''})"


def _held(optimizer: Any) -> list[torch.Tensor]:
    """All parameters of an optimizer, or of what wraps one."""
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        raise ValueError(f"guard takes a torch.optim.Optimizer, got {described(optimizer)}")
    return [p for group in groups for p in group["params"]]
