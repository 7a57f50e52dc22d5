"""The clipper: measure the gradient, ask the policy for a limit, respond."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cliplab.attachment import Attachment
from cliplab.history import ClipReport, History
from cliplab.norms import check_norm_type, member_norms, scale_, tensor_norms, total_norm
from cliplab.parameters import Parameters, select_parameters
from cliplab.policy import Context, Threshold
from cliplab.thresholds import Fixed

Scope = Literal["global", "tensor", "element", "member"]
Mode = Literal["rescale", "skip"]
NonFinite = Literal["raise", "skip", "zero", "propagate"]


class NonFiniteGradientError(FloatingPointError):
    """A gradient held NaN or inf and the clipper was told to raise."""


class Clipper:
    """Clip gradients: ``g <- g * min(1, c / size)`` for every part of the gradient.

    ``scope`` partitions: the whole gradient, each "tensor", each "element" (value clipping,
    ``clamp(g, -c, c)``), or each "member" (leading axis of stacked models). ``threshold`` is
    ``c``: a number or a policy. ``mode`` "skip" leaves the gradient and reports the step as
    skipped; through ``attach`` the optimizer then takes no step at all.

    ``params``: a module, tensors, ``(name, tensor)`` pairs, or optimizer-style groups, of which
    one with ``clip=False`` is neither measured nor clipped. ``exclude``: name patterns
    (``fnmatch``). ``nonfinite``: "raise" (which waits for the device at every step), "skip" the
    step, "zero" the parts, or "propagate".

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
        self.scope = _check_choice("scope", scope, Scope)
        self.mode = _check_choice("mode", mode, Mode)
        self.nonfinite = _check_choice("nonfinite", nonfinite, NonFinite)
        self.norm_type = check_norm_type(norm_type)
        self.params = select_parameters(params, exclude)
        self.policy = (
            copy.deepcopy(threshold) if isinstance(threshold, Threshold) else Fixed(threshold)
        )
        if scope == "element" and not isinstance(self.policy, Fixed):
            raise ValueError(f'scope "element" needs a fixed threshold, got {self.policy!r}')
        if mode == "skip" and scope not in ("global", "tensor"):
            raise ValueError(f'mode "skip" needs scope "global" or "tensor", got {scope!r}')
        self.policy.init(self._count_parts(), self.params[0].device)
        self.history = History(scalar=scope in ("global", "element"))
        self.attached = False
        self.steps = 0

    def clip(self, loss: Tensor | None = None) -> ClipReport:
        """Clip the gradients in place and return what was done; ``loss`` is shown to the policy."""
        return self._clip(loss, lr=None, dropped=None)

    def attach(self, optimizer: torch.optim.Optimizer) -> Attachment:
        """Clip at every ``optimizer.step()``; returns a handle with ``remove()``.

        Right under ``torch.amp.GradScaler`` (clips in true units) and gradient accumulation; the
        recorded learning rate is that of the group with the clipper's first parameter. An
        optimizer that holds only part of the clipper's parameters, or a second optimizer, is a
        ``ValueError``; a closure given to ``step`` is a ``RuntimeError``. Of several clippers on
        one optimizer each records what it did itself, not that another skipped the step.
        """
        return Attachment(self, optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return step count and policy state; the history is not part of it."""
        return {"steps": self.steps, "policy": self.policy.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where the saved clipper stopped; ``ValueError`` for a state of another kind."""
        if set(state) != {"steps", "policy"}:
            raise ValueError(f"expected a state with 'steps' and 'policy', got {sorted(state)}")
        self.policy.load_state_dict(state["policy"])
        self.steps = int(state["steps"])

    @torch.no_grad()
    def _clip(self, loss: Tensor | None, lr: float | None, dropped: Tensor | None) -> ClipReport:
        """Do ``clip``; ``dropped`` is a GradScaler's flag that it will not take this step."""
        present = [p.grad is not None for p in self.params]
        grads = [p.grad for p in self.params if p.grad is not None]
        sizes, active = self._measure(grads, present)
        finite = sizes.isfinite() | ~active
        if self.nonfinite == "raise" and dropped is None and not bool(finite.all()):
            raise NonFiniteGradientError(self._describe(sizes, finite))
        learns = active & finite
        if dropped is not None:
            learns = learns & (dropped.to(sizes.device) == 0)
        self.steps += 1
        context = Context(learns, self.steps - 1, lr, loss)
        limits = self.policy(sizes, context)
        report = self._respond(grads, present, sizes, limits, finite)
        if dropped is not None:
            report = report._replace(skipped=report.skipped | (dropped.to(sizes.device) != 0).all())
        row = torch.stack([column.to(sizes) for column in report])
        self.history.append(row.reshape(6, -1), lr)
        return report

    def _count_parts(self) -> int:
        if self.scope == "tensor":
            return len(self.params)
        if self.scope != "member":
            return 1
        members = {p.shape[0] if p.ndim else 0 for p in self.params}
        if len(members) > 1 or members == {0}:
            shapes = [tuple(p.shape) for p in self.params]
            raise ValueError(f'scope "member" needs one common leading axis, got shapes {shapes}')
        return members.pop()

    def _measure(self, grads: list[Tensor], present: list[bool]) -> tuple[Tensor, Tensor]:
        """Return sizes ``[n_parts]`` and the mask of parts that have a gradient."""
        device, n_parts = self.params[0].device, self._count_parts()
        if not grads:
            return torch.zeros(n_parts, device=device), torch.zeros(n_parts, device=device).bool()
        if self.scope == "tensor":
            norms = tensor_norms(grads, self.norm_type).to(device)
            active = torch.tensor(present, device=device)
            return torch.zeros(n_parts, device=device).to(norms).masked_scatter(
                active, norms
            ), active
        if self.scope == "member":
            sizes = member_norms(grads, self.norm_type)
        else:
            order = math.inf if self.scope == "element" else self.norm_type
            sizes = total_norm(grads, order).reshape(1)
        return sizes.to(device), torch.ones(n_parts, dtype=torch.bool, device=device)

    def _respond(
        self,
        grads: list[Tensor],
        present: list[bool],
        sizes: Tensor,
        limits: Tensor,
        finite: Tensor,
    ) -> ClipReport:
        limits = limits.to(sizes)
        over = sizes > limits
        skipped = (~finite).any() if self.nonfinite == "skip" else over.new_zeros(())
        if self.mode == "skip":
            skipped = skipped | over.any()
            factor, after = torch.ones_like(sizes), sizes
        elif self.scope == "element":
            factor = self._clamp(grads, finite, skipped)
            after = torch.minimum(sizes, limits)
        else:
            # No limit, no factor: inf / inf would turn one bad entry into a bad gradient.
            acts = (over | ~finite) & limits.isfinite() & ~skipped
            factor = torch.where(acts, limits / sizes, 1.0)
            if self.nonfinite == "zero":
                factor = factor.where(finite, 0.0)
            self._scale(grads, present, factor, finite)
            after = sizes * factor
        if self.nonfinite == "zero":
            after = after.where(finite, 0.0)
        columns = (sizes, after, limits, factor, over, skipped.expand_as(over))
        scalar = self.scope in ("global", "element")
        return ClipReport(*(column[0] if scalar else column for column in columns))

    def _clamp(self, grads: list[Tensor], finite: Tensor, skipped: Tensor) -> Tensor:
        """Clamp every entry; return the L2 norm after over the one before, ``[1]``."""
        assert isinstance(self.policy, Fixed)
        before = total_norm(grads)
        if self.nonfinite == "zero":
            _zero_where(grads, [finite[0]] * len(grads))
        if grads and not (self.nonfinite == "skip" and bool(skipped)):
            torch._foreach_clamp_min_(grads, -self.policy.value)
            torch._foreach_clamp_max_(grads, self.policy.value)
        factor = torch.where(before > 0, total_norm(grads) / before, 1.0)
        return factor.reshape(1).to(finite.device)

    def _scale(
        self, grads: list[Tensor], present: list[bool], factor: Tensor, finite: Tensor
    ) -> None:
        """Multiply every gradient by its part's factor."""
        if not grads:
            return
        if factor.device.type == "cpu" and bool((factor == 1).all()):
            return
        if self.scope == "tensor":
            chosen = torch.tensor(present, device=factor.device)
            factors, fine = list(factor[chosen].unbind()), list(finite[chosen].unbind())
        elif self.scope == "member":
            views = [(-1, *[1] * (g.ndim - 1)) for g in grads]
            factors, fine = [factor.view(v) for v in views], [finite.view(v) for v in views]
        else:
            factors, fine = [factor[0]] * len(grads), [finite[0]] * len(grads)
        if self.nonfinite == "zero":
            _zero_where(grads, fine)
        if self.scope == "global":
            scale_(grads, factor[0])
        else:
            for grad, own in zip(grads, factors, strict=True):
                grad.mul_(own.to(grad.device))  # the factor keeps its precision

    def _describe(self, sizes: Tensor, finite: Tensor) -> str:
        worst = int((~finite).nonzero()[0])
        where = "" if self.scope in ("global", "element") else f" of {self.scope} {worst}"
        return f"gradient norm{where} is {float(sizes[worst])} at step {self.steps}"


def _zero_where(grads: list[Tensor], fine: list[Tensor]) -> None:
    """Zero the entries whose part is not finite (0 x NaN would stay NaN)."""
    for grad, keep in zip(grads, fine, strict=True):
        grad.masked_fill_(~keep.to(grad.device), 0.0)


def _check_choice(name: str, value: Any, choices: Any) -> Any:
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {value!r}")
    return value
