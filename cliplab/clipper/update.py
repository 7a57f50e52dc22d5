"""What the step of an optimizer does to the weights: measured, and held back where it is too much.

The update of a tensor is ``u = (w (1 - lr wd) - w') / lr`` with ``w`` before and ``w'`` after the
step: where weight decay is decoupled from the gradient it is no part of ``u`` and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast, overload

import torch
from torch import Tensor

from cliplab.checks import NonFiniteGradientError, may_look
from cliplab.clipper.engine import Engine, Signal
from cliplab.clipper.holding import Share
from cliplab.clipper.skipping import is_torchs
from cliplab.norms import kinds, laid_out_as, local, total_norm
from cliplab.parts import version
from cliplab.thresholds import learnt_share

Rate = float | Tensor

DECOUPLED = ("Adafactor", "Muon")  # of torch.optim, with weight decay that no group tells of
# Of others, whose groups say "decoupled" of a weight decay that has a rate, or a mask, of its own.
OWN_DECAY = {
    "APOLLO",
    "ASGD",
    "AdaFactor",
    "AdamS",
    "DAdaptAdaGrad",
    "DAdaptAdam",
    "DAdaptAdan",
    "DAdaptLion",
    "DAdaptSGD",
    "Kron",
    "MARS",
    "Magma",
    "Prodigy",
    "RAdam",
    "Ranger21",
    "SPlus",
    "StableAdamW",
}
COPIES = "keeps weights or steps of its own, and would go on without the limit"
# What does, of torch and others: weights that are averaged, mixed with older ones, written anew
# from a sum of gradients, or projected. A name here speaks for its subclasses.
KEEPERS = {
    "A2Grad",
    "AccSGD",
    "AdaSmooth",
    "DAdaptAdaGrad",
    "DAdaptSGD",
    "FOCUS",
    "FTRL",
    "LBFGS",
    "Lookahead",
    "MADGRAD",
    "Nero",
    "Prodigy",
    "Ranger",
    "Ranger21",
    "SPlus",
    "SRMM",
    "SpectralSphere",
    "TRAC",
}


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
        self._written: list[int] = []
        self._rates: list[Rate] = []

    @torch.no_grad()
    def begin(self, shares: Iterable[Share]) -> None:
        """Keep the weights, decayed as the step will decay them, and the learning rates."""
        weights, self._shares = self._weights(), list(shares)
        self._kept, self._rates = list(weights), [0.0] * len(weights)
        self._written = list(map(version, self._engine.params))
        for share in self._shares:
            rate = share.group.get("lr", 1.0)
            copies = torch._foreach_mul([weights[i] for i in share.held], 1 - _decay(share, rate))
            for i, copy in zip(share.held, copies, strict=True):
                self._kept[i], self._rates[i] = copy, rate

    @torch.no_grad()
    def end(self, lr: Rate, dropped: Tensor | None) -> None:
        """Compare the weights with what was kept of them; ``dropped`` flags that none moved."""
        kept, self._kept = self._kept, []
        params, weights = self._engine.params, self._weights()
        if dropped is not None:
            pairs = zip(weights, kept, strict=True)
            kept = [torch.where(dropped.to(w.device) != 0, w, k) for w, k in pairs]
        moved = [i for i, p in enumerate(params) if self._took(i, p) and _moves(self._rates[i])]
        updates: list[Tensor | None] = [None] * len(params)
        if moved:
            steps = torch._foreach_sub([kept[i] for i in moved], [weights[i] for i in moved])
            for i, step in zip(moved, steps, strict=True):
                updates[i] = laid_out_as(step, params[i])
        scale, still = self._common_scale(updates, moved)
        if still is not None:
            dropped = still if dropped is None else dropped + still.to(dropped.device)
        norm = self._norm(updates, scale) if self._measures else None
        if self._limits:
            self._limit(kept, updates, moved, Signal(lr, scale, dropped))
        if norm is not None:
            self._engine.history.put_update(norm)

    def leave_out(self) -> None:
        """Note that the step is not taken; ``end`` may not come."""
        if self._measures:
            self._engine.history.put_update(0.0)

    def _took(self, i: int, p: Tensor) -> bool:
        """Whether a step took a weight along; its gradient may be gone by now."""
        return p.grad is not None or version(p) != self._written[i]

    def _weights(self) -> list[Tensor]:
        """The weights that lie on this rank."""
        return [local(p) for p in self._engine.params]

    def _limit(
        self,
        kept: Sequence[Tensor],
        updates: Sequence[Tensor | None],
        moved: Sequence[int],
        signal: Signal,
    ) -> None:
        """Clip the updates, and have the weights follow."""
        before = [laid_out_as(k, p) for k, p in zip(kept, self._engine.params, strict=True)]
        signal = signal._replace(weights=before, surprise=self._surprise)
        try:
            step = self._engine.step(signal, updates)
        except NonFiniteGradientError:
            weights = self._weights()
            torch._foreach_copy_([weights[i] for i in moved], [kept[i] for i in moved])
            raise
        if step.after is not step.size and moved:
            self._hold_back(kept, updates, moved, signal.scale)

    def _common_scale(
        self, updates: list[Tensor | None], moved: Sequence[int]
    ) -> tuple[Tensor | None, Tensor | None]:
        """What all updates are multiplied by; None where they have been divided by their own.

        And a flag that it was 0; None where that is known not to be.
        """
        rates = [self._rates[i] for i in moved]
        if all(rate is rates[0] or _same(rate, rates[0]) for rate in rates):
            rate = rates[0] if rates else 1.0
            if not isinstance(rate, Tensor):
                return torch.tensor(rate, dtype=torch.float64, device="cpu"), None
            return _usable(rate), None if may_look(rate) else (rate == 0).float().reshape(())
        for i in moved:
            rate = self._rates[i] = _usable(self._rates[i])
            local(_held(updates, i)).div_(rate)
        return None, None

    def _norm(self, updates: Sequence[Tensor | None], scale: Tensor | None) -> float | Tensor:
        """Norm of all updates as one vector."""
        norm = total_norm([update for update in updates if update is not None])
        norm = norm if scale is None else norm / scale.to(norm)
        return float(norm) if may_look(norm) else norm

    def _hold_back(
        self,
        kept: Sequence[Tensor],
        allowed: Sequence[Tensor | None],
        moved: Sequence[int],
        scale: Tensor | None,
    ) -> None:
        """Take from the step what is not allowed; where all is, no weight changes by a bit."""
        here = self._weights()
        weights, before = [here[i] for i in moved], [kept[i] for i in moved]
        if self._engine.nonfinite == "zero":
            for w, k in zip(weights, before, strict=True):
                w.copy_(torch.where(w.isfinite(), w, k))
        steps = [local(_held(allowed, i)) for i in moved]
        if scale is None:
            steps = [step.mul_(self._rates[i]) for i, step in zip(moved, steps, strict=True)]
        torch._foreach_sub_(before, weights)
        torch._foreach_sub_(before, steps)
        torch._foreach_add_(weights, before)

    def _surprise(self) -> Tensor:
        """Root mean square of ``g / max(sqrt(v), eps)`` of every part, ``[n_parts]``.

        ``v`` is the optimizer's bias-corrected running mean of the squared gradient.
        """
        params = self._engine.params
        relative: list[Tensor | None] = [None] * len(params)
        for share in self._shares:
            beta, eps = _second_beta(share), share.group.get("eps", 1e-8)
            held = [i for i in share.held if params[i].grad is not None and _moves(self._rates[i])]
            grads = [local(cast("Tensor", params[i].grad)) for i in held]
            for bucket in kinds(grads).values():
                own = [share.optimizer.state[params[held[k]]] for k in bucket]
                steps = torch.stack([torch.as_tensor(state["step"]).reshape(()) for state in own])
                learnt = learnt_share(beta, steps).sqrt().to(grads[bucket[0]].device)
                scales = torch._foreach_sqrt([local(state["exp_avg_sq"]) for state in own])
                torch._foreach_div_(scales, learnt.unbind())
                torch._foreach_clamp_min_(scales, eps)
                ratios = torch._foreach_div([grads[k] for k in bucket], scales)
                for k, ratio in zip(bucket, ratios, strict=True):
                    relative[held[k]] = laid_out_as(ratio, params[held[k]])
        partition = self._engine.partition
        sizes = partition.measure(relative, 2.0)[0].float()
        return sizes / partition.numels().to(sizes).clamp(min=1).sqrt()


def _check(optimizer: Any) -> None:
    """``ValueError`` for an optimizer of which the update cannot be limited from outside.

    One that can be switched to ``eval()`` holds two sets of weights; others are known by name, as
    are those that it holds and calls.
    """
    name = type(optimizer).__name__
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise ValueError(
            f"cannot limit the update of a differentiable {name}: the limit would be no part of "
            "what is differentiated"
        )
    held = [x for x in vars(optimizer).values() if hasattr(x, "param_groups")]
    for one in (optimizer, *held):
        names = {kind.__name__ for kind in type(one).__mro__}
        keeps = not names.isdisjoint(KEEPERS) or any("ScheduleFree" in name for name in names)
        if keeps or callable(getattr(one, "eval", None)) or isinstance(one, torch.optim.ASGD):
            inside = "" if one is optimizer else f" with {type(one).__name__}"
            raise ValueError(f"cannot limit the update of {name}{inside}, which {COPIES}")


def _decay(share: Share, rate: Rate) -> Rate:
    """The share of a weight that decoupled weight decay takes in a step."""
    group, decay = share.group, share.group.get("weight_decay", 0.0)
    told = group.get("decoupled_weight_decay", group.get("weight_decouple", False))
    kind = type(share.optimizer).__name__
    if is_torchs(share.optimizer):
        told = told or kind in DECOUPLED
    elif kind in OWN_DECAY:
        told = False
    if not told:
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


@overload
def _usable(rate: Tensor) -> Tensor: ...
@overload
def _usable(rate: float) -> float: ...
def _usable(rate: Rate) -> Rate:
    """A learning rate to divide by: where nobody may look whether it is 0, then 1."""
    if not isinstance(rate, Tensor) or may_look(rate):
        return rate
    return torch.where(rate == 0, 1.0, rate)


def _held(updates: Sequence[Tensor | None], i: int) -> Tensor:
    """The update of a tensor that moved."""
    return cast("Tensor", updates[i])


def _same(one: Rate, other: Rate) -> bool:
    return isinstance(one, float | int) and isinstance(other, float | int) and one == other
