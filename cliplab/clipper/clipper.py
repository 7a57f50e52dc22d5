"""The clipper: measure the gradient, ask the policy for a limit, respond."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import NonFiniteGradientError, check_choice, check_norm_type, may_look
from cliplab.clipper.attachment import Attachment
from cliplab.clipper.groups import Mode, NonFinite, policy_of_groups
from cliplab.clipper.nonfinite import Watch
from cliplab.history import ClipReport, History, Row
from cliplab.norms import DOUBLE, combine, total_norm
from cliplab.parts import (
    Gradients,
    Parameters,
    RowParts,
    Scope,
    TensorParts,
    divide,
    gradients,
    select_parameters,
)
from cliplab.thresholds import Context, Threshold, as_policy


class Clipper:
    """Clip gradients: ``g <- g * min(1, c / size)`` for every part of the gradient.

    ``scope`` partitions: the whole gradient, each param "group", each "tensor", each "unit" (an
    output row or filter), each "element" (value clipping, ``clamp(g, -c, c)``), or each "member"
    (leading axis of stacked models). ``threshold`` is ``c``: a number or a policy, which is copied.
    ``mode``: "rescale"; "soft" (``g * c / (c + size)``); or "skip", which leaves the gradient and
    reports the step as skipped; through ``attach`` the optimizer then takes no step at all.

    ``params``: a module, tensors, ``(name, tensor)`` pairs, or optimizer-style groups. A group with
    ``clip=False`` is neither measured nor clipped; one with its own ``threshold`` is measured and
    clipped on its own. ``exclude``: name patterns (``fnmatch``). The units of bare tensors lie on
    their first axis; a module knows better (transposed convolutions).

    ``nonfinite``: "raise", "skip" the step, "zero" the parts, or "propagate". On an accelerator
    "raise" does not wait: the error comes at a later ``clip`` or ``flush`` and names the step.

    Raises ``ValueError`` on a bad argument, ``NonFiniteGradientError`` at a non-finite gradient.
    Source: Pascanu, Mikolov, Bengio 2013.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> Clipper([weight], threshold=1.0).clip().norm_before
    tensor(5.)
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """

    def __init__(
        self,
        params: Parameters,
        threshold: float | Threshold = 1.0,
        *,
        scope: Scope = "global",
        norm_type: float = 2.0,
        mode: Mode = "rescale",
        nonfinite: NonFinite = "raise",
        exclude: str | Sequence[str] | None = None,
    ) -> None:
        self.scope = check_choice("scope", scope, Scope)
        self.mode = check_choice("mode", mode, Mode)
        self.nonfinite = check_choice("nonfinite", nonfinite, NonFinite)
        self.norm_type = check_norm_type(norm_type)
        self._order = math.inf if scope == "element" else self.norm_type
        groups = select_parameters(params, exclude)
        self.params = [p for group in groups for p in group.params]
        self.partition, labels, group_of = divide(self.scope, groups, params)
        self.policy = policy_of_groups(as_policy(threshold), groups, group_of)
        if scope == "element" and not self.policy.stateless:
            raise ValueError(f'scope "element" needs a fixed threshold, got {self.policy!r}')
        if mode == "skip" and scope not in ("global", "group", "tensor"):
            raise ValueError(f'mode "skip" needs scope global, group or tensor, got {scope!r}')
        if mode == "soft" and scope == "element":
            raise ValueError('mode "soft" cannot be used with scope "element"')
        self.policy.init(self.partition.n_parts, self.partition.device)
        scalar = scope in ("global", "element") and self.partition.n_parts == 1
        self.history = History(labels, scalar=scalar)
        self.attached = False
        self.steps = 0
        kind = torch.float64 if any(p.dtype in DOUBLE for p in self.params) else torch.float32
        self._ones = torch.ones(self.partition.n_parts, device=self.partition.device, dtype=kind)
        self._host = may_look(self._ones)
        self._zeros = torch.zeros_like(self._ones)
        self._numels = self.partition.numels()
        self._is_one = (
            self._host
            and isinstance(self.partition, TensorParts)
            and self.partition.n_parts == 1
            and mode == "rescale"
            and scope != "element"
        )
        self._loss: Tensor | None = None
        self._watch = Watch()

    def clip(self, loss: float | Tensor | None = None) -> ClipReport:
        """Clip the gradients in place and return what was done; ``loss`` is shown to the policy."""
        self._loss = self._loss if loss is None else torch.as_tensor(loss).detach()
        return self._clip(lr=None)

    def observe(self, loss: float | Tensor) -> None:
        """Show the next step's loss to the policy; for loss-aware policies used with ``attach``."""
        self._loss = torch.as_tensor(loss).detach()

    def attach(self, optimizer: torch.optim.Optimizer) -> Attachment:
        """Clip at every ``optimizer.step()``; returns a handle with ``remove()``.

        Right under ``torch.amp.GradScaler`` (clips in true units) and gradient accumulation; the
        recorded learning rate is that of the group with the clipper's first parameter. A fused
        optimizer is handed the factor where there is one for all it holds: it then multiplies in
        its own pass, and ``p.grad`` is the raw gradient before and the clipped one after the step.

        An optimizer that holds only part of the clipper's parameters, or a second optimizer, is a
        ``ValueError``; a closure given to ``step`` is a ``RuntimeError``. Of several clippers on
        one optimizer each records what it did itself, not that another skipped the step.
        """
        return Attachment(self, optimizer)

    def flush(self) -> None:
        """Wait for the device, and raise what ``nonfinite="raise"`` has found there."""
        self._watch.check(wait=True)

    def state_dict(self) -> dict[str, Any]:
        """Return step count and policy state; the history is not part of it."""
        return {"steps": self.steps, "policy": self.policy.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the saved clipper stopped; ``ValueError`` for a state of another kind."""
        if set(state) != {"steps", "policy"}:
            raise ValueError(f"expected a state with 'steps' and 'policy', got {sorted(state)}")
        steps = int(state["steps"])  # first: all is taken over, or nothing
        self.policy.load_state_dict(state["policy"])
        self.steps = steps
        if not len(self.history):
            self.history.first_step = self.steps

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"attached": False}  # a copy is not at work on any optimizer

    @torch.no_grad()
    def _clip(
        self,
        lr: float | Tensor | None,
        dropped: Tensor | None = None,
        scale: Tensor | None = None,
        hand_over: bool = False,
    ) -> ClipReport:
        """Do ``clip``; ``dropped`` is a GradScaler's flag that it will not take this step.

        ``scale``: what the gradients were multiplied by. ``hand_over``: leave multiplying by
        the reported factor to the optimizer.
        """
        loss, self._loss = self._loss, None
        grads = gradients(self.params, rows=isinstance(self.partition, RowParts))
        sizes, active, complete = self.partition.measure(grads, self._order)
        if scale is not None:
            sizes = sizes / scale.to(sizes)
        if sizes.dtype is not self._ones.dtype:
            sizes = sizes.to(self._ones.dtype)
        finite = self._finite(sizes)
        if finite is not None and self.nonfinite == "raise":
            self._raise(sizes, ~finite if dropped is None else ~finite & (dropped == 0))
        learns = active if finite is None else active & finite
        if dropped is not None:
            learns = learns & (dropped.to(sizes.device) == 0)
        context = Context(
            learns,
            self.steps,
            lr,  # type: ignore[arg-type]
            loss,
            lambda: self._total(sizes, learns),
            self._weight_norms,
            lambda: self._numels,
            clean=complete and finite is None and dropped is None and sizes.dtype is torch.float32,
        )
        limits = self.policy(sizes, context).to(sizes.dtype)
        self.steps += 1
        row: Row
        if finite is None and dropped is None and self._is_one and limits.dtype is torch.float32:
            row = self._respond_to_one(grads, float(sizes), float(limits), hand_over)
        else:
            row = self._respond(grads, sizes, limits, finite, hand_over)
            if dropped is not None:
                row[5].logical_or_((dropped.to(sizes.device) != 0).all())
        self.history.append(row, lr)
        return ClipReport(row, self.history.scalar)

    def _respond_to_one(
        self, grads: Gradients, size: float, limit: float, hand_over: bool
    ) -> tuple[float, ...]:
        """``_respond`` for one finite part on a CPU, in numbers: small models feel every call."""
        if not size > limit:
            return size, size, limit, 1.0, 0.0, 0.0
        factor = limit / size
        if not hand_over:
            self.partition.scale_(grads, torch.tensor([factor]))
        return size, size * factor, limit, factor, 1.0, 0.0

    def _finite(self, sizes: Tensor) -> Tensor | None:
        """The mask of finite sizes; None where a look, free on a CPU, says that all are."""
        if self._host and math.isfinite(float(sizes if len(sizes) == 1 else sizes.sum())):
            return None
        finite = sizes.isfinite()
        return None if self._host and bool(finite.all()) else finite

    def _respond(
        self,
        grads: Gradients,
        sizes: Tensor,
        limits: Tensor,
        finite: Tensor | None,
        hand_over: bool,
    ) -> Tensor:
        """Scale the gradients; return the columns of the report, ``[6, n_parts]``.

        ``finite``: the mask of finite parts, or None where all are known to be.
        """
        over, skipped = sizes > limits, self._zeros
        if finite is not None and self.nonfinite == "zero":
            over = over & finite
        if finite is None and self.mode == "rescale" and self.scope != "element":
            if not bool(over.any()):
                return torch.stack((sizes, sizes, limits, self._ones, skipped, skipped))
            factor = torch.where(over, limits / sizes, self._ones)
            if not hand_over:
                self.partition.scale_(grads, factor)
            after = sizes * factor
            return torch.stack((sizes, after, limits, factor, over.to(sizes.dtype), skipped))
        skipped = skipped.bool()
        if self.mode == "skip":
            skipped = skipped | over.any()
        if self.nonfinite == "skip" and finite is not None:
            skipped = skipped | ~finite.all()
        if self.nonfinite == "zero" and finite is not None:
            self.partition.clear_(grads, ~finite)
        if self.mode == "skip":
            factor = self._ones
        elif self.scope == "element":
            factor = self._clamp(grads, limits, skipped).expand_as(sizes)
        else:
            factor = self._factor(sizes, limits, over, finite, skipped)
            if not hand_over:
                self.partition.scale_(grads, factor)
        after = sizes * factor
        if self.scope == "element":
            after = torch.where(skipped, sizes, torch.minimum(sizes, limits))
        if self.nonfinite == "zero" and finite is not None:
            factor, after = factor.where(finite, 0.0), after.where(finite, 0.0)
        flags = over.to(sizes.dtype), skipped.to(sizes.dtype)
        return torch.stack((sizes, after, limits, factor, *flags))

    def _factor(
        self,
        sizes: Tensor,
        limits: Tensor,
        over: Tensor,
        finite: Tensor | None,
        skipped: Tensor,
    ) -> Tensor:
        """What to multiply every part by: 1 where nothing is to be done, ``[n_parts]``."""
        if self.mode == "soft":
            acts, ratio = limits.isfinite() & (sizes > 0), limits / (limits + sizes)
        else:
            acts, ratio = over, limits / sizes
        if finite is not None:
            if self.nonfinite in ("skip", "zero"):
                acts = acts & finite & ~skipped
            else:  # no limit, no factor: inf / inf would turn one bad entry into a bad gradient
                acts = (acts | ~finite) & limits.isfinite()
        return torch.where(acts, ratio, 1.0)

    def _clamp(self, grads: Gradients, limits: Tensor, skipped: Tensor) -> Tensor:
        """Clamp every entry; return the L2 norm after over the one before."""
        assert isinstance(self.partition, TensorParts)
        present = [g for g in grads if g is not None]
        before = total_norm(present)
        self.partition.clamp_(grads, torch.where(skipped, math.inf, limits))
        usable = (before > 0) & before.isfinite()
        return torch.where(usable, total_norm(present) / before, 1.0).to(limits)

    def _total(self, sizes: Tensor, counts: Tensor) -> Tensor:
        if self.scope == "member":  # every member is a gradient of its own
            return sizes
        return combine(torch.where(counts, sizes, 0.0), self.norm_type)

    def _weight_norms(self) -> Tensor:
        return self.partition.measure(self.params, self.norm_type)[0].float()

    def _raise(self, sizes: Tensor, bad: Tensor) -> None:
        self._watch.check()
        if not may_look(sizes):
            self._watch.put(self.steps, bad.any())
        elif bool(bad.any()):
            worst = int(bad.nonzero()[0])
            where = "" if self.history.scalar else f" of {self.history.label(worst)}"
            found = f"norm{where} is {float(sizes[worst])}"
            raise NonFiniteGradientError(f"gradient {found} at step {self.steps}")
