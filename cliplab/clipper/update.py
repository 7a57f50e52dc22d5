"""What the step of an optimizer does to the weights: measured, and held back where it is too much.

The update of a tensor is ``u = (w (1 - lr wd) - w') / lr`` with ``w`` before and ``w'`` after the
step: where weight decay is decoupled from the gradient it is no part of ``u`` and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import NonFiniteGradientError, may_look
from cliplab.clipper.engine import Engine, Signal
from cliplab.clipper.holding import Share
from cliplab.clipper.skipping import is_torchs
from cliplab.norms import total_norm

Rate = float | Tensor

DECOUPLED = ("Adafactor", "Muon")  # of torch.optim, with weight decay that no group tells of
COPIES = "keeps the weights themselves in its state, which would go on without the limit"


class Update:
    """The weights before a step of optimizers, and what follows from them after it.

    Between the two a copy of the weights is held, and one more while they are compared.
    """

    def __init__(self, engine: Engine, optimizers: Sequence[Any], *, measures: bool) -> None:
        self._engine, self._measures = engine, measures
        self._limits = engine.target == "update"
        if self._limits:
            for optimizer in optimizers:
                _check(optimizer)
        self._shares: list[Share] = []
        self._kept: list[Tensor] = []
        self._rates: list[Rate] = []

    @torch.no_grad()
    def begin(self, shares: Iterable[Share]) -> None:
        """Keep the weights, decayed as the step will decay them, and the learning rates."""
        params, self._shares = self._engine.params, list(shares)
        kept: list[Tensor] = list(params)
        self._rates = [0.0] * len(params)
        for share in self._shares:
            rate = share.group.get("lr", 1.0)
            left = 1 - _decay(share, rate)
            copies = torch._foreach_mul([params[i] for i in share.held], left)
            for i, copy in zip(share.held, copies, strict=True):
                kept[i], self._rates[i] = copy, rate
        self._kept = kept

    @torch.no_grad()
    def end(self, lr: Rate, dropped: Tensor | None) -> None:
        """Compare the weights with what was kept of them; ``dropped`` flags that none moved."""
        kept, self._kept = self._kept, []
        params = self._engine.params
        if dropped is not None:
            kept = [
                torch.where(dropped.to(p.device) != 0, p, k)
                for p, k in zip(params, kept, strict=True)
            ]
        moved = [i for i, p in enumerate(params) if p.grad is not None and _moves(self._rates[i])]
        updates: list[Tensor | None] = [None] * len(params)
        if moved:
            steps = torch._foreach_sub([kept[i] for i in moved], [params[i] for i in moved])
            for i, update in zip(moved, steps, strict=True):
                updates[i] = update
        scale = self._common_scale(updates, moved)
        if self._measures:
            self._measure(updates, scale)
        if not self._limits:
            return
        signal = Signal(lr, scale, dropped, weights=kept, surprise=self._surprise)
        try:
            step = self._engine.step(signal, updates)
        except NonFiniteGradientError:
            torch._foreach_copy_([params[i] for i in moved], [kept[i] for i in moved])
            raise
        if step.after is not step.size and moved:
            self._hold_back(kept, updates, moved, scale)

    def _common_scale(self, updates: list[Tensor | None], moved: Sequence[int]) -> Tensor | None:
        """What all updates are multiplied by; None where they have been divided by their own."""
        rates = [self._rates[i] for i in moved]
        if all(rate is rates[0] or _same(rate, rates[0]) for rate in rates):
            rate = rates[0] if rates else 1.0
            wide = torch.float64
            return (
                rate if isinstance(rate, Tensor) else torch.tensor(rate, dtype=wide, device="cpu")
            )
        for i in moved:
            updates[i].div_(self._rates[i])  # type: ignore[union-attr]
        return None

    def _measure(self, updates: Sequence[Tensor | None], scale: Tensor | None) -> None:
        """Note the norm of all updates as one vector."""
        norm = total_norm([update for update in updates if update is not None])
        norm = norm if scale is None else norm / scale.to(norm)
        self._engine.history.put_update(float(norm) if may_look(norm) else norm)

    def _hold_back(
        self,
        kept: Sequence[Tensor],
        allowed: Sequence[Tensor | None],
        moved: Sequence[int],
        scale: Tensor | None,
    ) -> None:
        """Take from the step what is not allowed; where all is, no weight changes by a bit."""
        params = self._engine.params
        weights, before = [params[i] for i in moved], [kept[i] for i in moved]
        if self._engine.nonfinite == "zero":
            for p, k in zip(weights, before, strict=True):
                p.copy_(torch.where(p.isfinite(), p, k))
        torch._foreach_sub_(before, weights)
        torch._foreach_sub_(before, [self._step_of(i, allowed, scale) for i in moved])
        torch._foreach_add_(weights, before)

    def _step_of(self, i: int, updates: Sequence[Tensor | None], scale: Tensor | None) -> Tensor:
        """What an update moves the weights by."""
        update = updates[i]
        assert update is not None
        return update if scale is not None else update.mul_(self._rates[i])

    def _surprise(self) -> Tensor:
        """Root mean square of ``g / max(sqrt(v), eps)`` of every part, ``[n_parts]``.

        ``v`` is the optimizer's bias-corrected running mean of the squared gradient.
        """
        relative: list[Tensor | None] = [None] * len(self._engine.params)
        for share in self._shares:
            beta, eps = _second_beta(share), share.group.get("eps", 1e-8)
            for i in share.held:
                p = self._engine.params[i]
                if p.grad is not None and _moves(self._rates[i]):
                    state = share.optimizer.state[p]
                    moment = state["exp_avg_sq"] / (1 - beta ** state["step"])
                    relative[i] = p.grad / moment.sqrt().clamp(min=eps)
        partition = self._engine.partition
        sizes = partition.measure(relative, 2.0)[0].float()
        return sizes / partition.numels().to(sizes).clamp(min=1).sqrt()


def _check(optimizer: Any) -> None:
    """``ValueError`` for an optimizer of which the update cannot be limited from outside."""
    names = [kind.__name__ for kind in type(optimizer).__mro__]
    if any("ScheduleFree" in name for name in names):
        raise ValueError(f"cannot limit the update of {names[0]}, which {COPIES}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            "cannot limit the update of LBFGS, which learns curvature from the steps that it took"
        )


def _decay(share: Share, rate: Rate) -> Rate:
    """The share of a weight that decoupled weight decay takes in a step."""
    group, decay = share.group, share.group.get("weight_decay", 0.0)
    told = group.get("decoupled_weight_decay", group.get("weight_decouple", False))
    known = is_torchs(share.optimizer) and type(share.optimizer).__name__ in DECOUPLED
    if not (told or known):
        return 0.0
    return decay if group.get("fixed_decay", False) else rate * decay  # type: ignore[no-any-return]


def _second_beta(share: Share) -> float:
    """The decay of an optimizer's running mean of squares; ``ValueError`` if it keeps none."""
    held = [share.optimizer.state.get(p, {}) for p in share.group["params"]]
    if "betas" not in share.group or not any({"exp_avg_sq", "step"} <= set(own) for own in held):
        raise ValueError(
            f"this policy reads exp_avg_sq and step, as Adam keeps them, from the optimizer's "
            f"state; {type(share.optimizer).__name__} has none"
        )
    return share.group["betas"][1]  # type: ignore[no-any-return]


def _moves(rate: Rate) -> bool:
    """Whether a learning rate is not known to be 0."""
    return not may_look(rate) or float(rate) != 0 if isinstance(rate, Tensor) else rate != 0


def _same(one: Rate, other: Rate) -> bool:
    return isinstance(one, float | int) and isinstance(other, float | int) and one == other
