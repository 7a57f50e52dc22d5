"""The engine: one step of clipping, from the gradients as they lie there to the record of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from cliplab.checks import NonFiniteGradientError, described, may_look
from cliplab.clipper import fast_step
from cliplab.clipper.choices import Choices
from cliplab.clipper.nonfinite import Watch, culprits
from cliplab.clipper.ranks import check_alike
from cliplab.clipper.torchs import Respond, with_eps
from cliplab.history import History
from cliplab.norms import DOUBLE, combine, whole
from cliplab.parts import (
    Gradients,
    Hand,
    Partition,
    Scope,
    first_gradient,
    mark,
    warn_if_clipped,
    warn_of_no_gradient,
    watched,
)
from cliplab.thresholds import (
    AnyStep,
    Context,
    EntryDeviations,
    Fixed,
    Mode,
    Step,
    Threshold,
    as_column,
    left_out,
    respond,
)


class Signal(NamedTuple):
    """What is known of a step beside its gradients.

    ``scale`` is what the gradients were multiplied by; ``dropped`` a GradScaler's flag that it
    will not take the step; ``hand_over`` leaves multiplying by the factor to the optimizer. Of an
    update there are the ``weights`` before it, and what measures its ``surprise``.
    """

    lr: float | Tensor | None = None
    scale: Tensor | None = None
    dropped: Tensor | None = None
    hand_over: bool = False
    weights: Sequence[Tensor] | None = None
    surprise: Callable[[], Tensor] | None = None


NO_SIGNAL = Signal()


class Measured(NamedTuple):
    """What a policy may ask beside the sizes ``[n_parts]``; norms are taken when it does."""

    sizes: Tensor
    learns: Tensor
    numels: Tensor
    partition: Partition
    scope: Scope
    norm_type: float
    signal: Signal

    @property
    def total_norm(self) -> Tensor:
        """Norm of all parts that learn as one vector; every member is a gradient of its own."""
        if self.scope == "member":
            return self.sizes
        return combine(torch.where(self.learns, self.sizes, 0.0), self.norm_type)

    @property
    def weight_norms(self) -> Tensor:
        """Norm of the weights of every part: ``[n_parts]``."""
        weights = self.signal.weights or self.partition.params
        return self.partition.measure(weights, self.norm_type)[0].float()

    @property
    def surprise(self) -> Tensor | None:
        """Root mean square of ``g / sqrt(v)`` of every part, for an update: ``[n_parts]``."""
        return None if self.signal.surprise is None else self.signal.surprise()


class Engine:
    """Steps of clipping: partition, policy and response at work on the gradients."""

    def __init__(
        self,
        partition: Partition,
        policy: Threshold,
        history: History,
        choices: Choices,
    ) -> None:
        self.partition, self.policy, self.history = partition, policy, history
        self.scope, self.norm_type, self.mode = choices.scope, choices.norm_type, choices.mode
        self.nonfinite, self.target, self.eps = choices.nonfinite, choices.target, choices.eps
        self.choices, self.check_ranks = choices, choices.check_ranks
        self.params = partition.params
        self.steps = 0
        self.attached: Any = None  # the Attachment at work
        self._way: Mode | Literal["clamp"] = "clamp" if self.scope == "element" else self.mode
        self._host = may_look(self.params[0])
        double = any(p.dtype in DOUBLE for p in self.params)
        self._dtype = torch.float64 if double else torch.float32
        self._numels = partition.numels()
        fast = fast_step.serves(partition, self.scope, self.mode, self._dtype) and not policy.band
        self._respond: Respond = fast_step.respond_to_one if fast else respond
        if self.eps:
            self._respond = with_eps(self.eps)
        self._loss: Tensor | None = None
        self._watch = Watch()
        self._hands = _hands_of(policy) if self.target == "gradient" else (None, None)
        self._entries = policy if isinstance(policy, EntryDeviations) else None

    def observe(self, loss: float | Tensor) -> None:
        """Show the next step's loss to the policy; for loss-aware policies used with ``attach``."""
        given: object = loss
        if isinstance(given, Tensor):
            self._loss = whole(given.detach())
        elif isinstance(given, Real):
            self._loss = torch.tensor(float(given), dtype=torch.float32, device="cpu")
        else:
            raise ValueError(f"loss must be a number or a tensor, got {described(given)}")

    def __getstate__(self) -> dict[str, Any]:
        # a copy is not at work on any optimizer, and waits for no device
        return self.__dict__ | {"attached": None, "_watch": Watch()}

    def step(self, signal: Signal = NO_SIGNAL, tensors: Gradients | None = None) -> AnyStep:
        """Clip in place, once, and return what was done.

        Clipped are the gradients that lie at the parameters, or the ``tensors`` given: one for
        each parameter, in their order, None for none.
        """
        if torch.is_inference_mode_enabled() and not self._is_of_inference():
            with torch.inference_mode(False):  # the state outlives it
                return self.step(signal, tensors)
        with torch.no_grad():
            grads = self.partition.read() if tensors is None else tensors
            hand = watched(self._hands[signal is NO_SIGNAL])
            if hand is not None:
                warn_if_clipped(grads, hand)
            sizes, finite, context = self._measure(grads, signal)
            limits = self.policy(sizes, context).to(sizes.dtype)
            step = self._respond(sizes, limits, finite, self._way, self.nonfinite)
            step = self._scale_(grads, step, finite, signal)
            if hand is not None:
                mark(grads, hand)
            self.history.append(step, signal.lr)
            self.steps += 1
            return step

    def _measure(self, grads: Gradients, signal: Signal) -> tuple[Tensor, Tensor | None, Context]:
        """Sizes, the mask of the finite ones, and what the policy may know.

        No mask where a look, free on a CPU, says that all are finite and nothing drops the step.
        """
        loss, self._loss = self._loss, None
        order = math.inf if self.scope == "element" else self.norm_type
        seen = grads if self._entries is None else self._entries.relative(grads)
        sizes, learns, complete = self.partition.measure(seen, order)
        waits = not complete and not len(self.history) and self.target == "gradient"
        if waits and self._is_none(grads, learns):
            warn_of_no_gradient(len(self.params))
        if signal.scale is not None:
            sizes = sizes / signal.scale.to(sizes)
        if sizes.dtype is not self._dtype:
            sizes = sizes.to(self._dtype)
        if self.check_ranks:
            check_alike(sizes, self.history.label)
            self.check_ranks = False
        finite = None
        if signal.dropped is not None or not self._are_finite(sizes):
            finite, bad = sizes.isfinite(), ~sizes.isfinite()
            learns = learns & finite
            if signal.dropped is not None:
                taken = signal.dropped.to(sizes.device) == 0
                learns, bad = learns & taken, bad & taken
            if self.nonfinite == "raise":
                self._raise(grads, sizes, bad)
        clean = complete and finite is None and self._dtype is torch.float32
        measured = Measured(
            sizes, learns, self._numels, self.partition, self.scope, self.norm_type, signal
        )
        return sizes, finite, Context(learns, self.steps, signal.lr, loss, measured, clean)

    def _is_of_inference(self) -> bool:
        """Whether gradients can be written to in inference mode only."""
        return any(p.grad is not None and p.grad.is_inference() for p in self.params)

    def _is_none(self, grads: Gradients, learns: Tensor) -> bool:
        """Whether it is known without waiting that there is no gradient, on any rank."""
        if self.partition.shared:
            return self._host and not bool(learns.any())
        return first_gradient(grads) is None

    def _are_finite(self, sizes: Tensor) -> bool:
        """Whether a look, free on a CPU, says that all sizes are finite."""
        if not self._host:
            return False
        total = float(sizes if len(sizes) == 1 else sizes.sum())
        return math.isfinite(total) or bool(sizes.isfinite().all())

    def _raise(self, grads: Gradients, sizes: Tensor, bad: Tensor) -> None:
        """Raise for a bad size and say which tensors hold what is not finite.

        On an accelerator nothing waits: the error comes at a later step, and names its step only.
        """
        self._watch.check()
        if not self._host:
            self._watch.put(self.steps, bad.any())
        elif bool(bad.any()):
            worst = int(bad.nonzero()[0])
            where = "" if self.history.scalar else f" of {self.history.label(worst)}"
            found = f"norm{where} is {float(sizes[worst])} at step {self.steps}"
            told = culprits(grads, self.partition)
            raise NonFiniteGradientError(f"{self.target} {found}: {told}")

    def _scale_(
        self, grads: Gradients, step: AnyStep, finite: Tensor | None, signal: Signal
    ) -> AnyStep:
        """Do to the gradients what the step says, or leave it to the optimizer."""
        if finite is not None and self.nonfinite == "zero":
            self.partition.clear_(grads, ~finite)
        if self.scope == "element":
            if finite is not None or not self._is_within(step):
                step = self._clamp_(grads, cast("Step[Tensor]", step), signal)
        elif step.after is not step.size and not signal.hand_over:
            self.partition.scale_(grads, as_column(step.factor))
        if signal.dropped is not None:  # then there was a mask, and the step is one of tensors
            flag = (signal.dropped.to(self.partition.device) != 0).all()
            step = left_out(cast("Step[Tensor]", step), flag)
        return step

    def _is_within(self, step: AnyStep) -> bool:
        """Whether no entry is above its limit, and none is learnt: where a look is free."""
        return self._entries is None and not bool(as_column(step.clipped).any())

    def _clamp_(self, grads: Gradients, step: Step[Tensor], signal: Signal) -> Step[Tensor]:
        """Clamp every entry; the factor is the L2 norm after over the one before."""
        before, scale = self._norm(grads), signal.scale
        limits = step.limit if scale is None else step.limit * scale.to(step.limit)
        limits = torch.where(step.skipped.bool(), math.inf, limits)
        if self._entries is None:
            self.partition.clamp_(grads, limits)
        else:
            learns = step.size.isfinite()
            if signal.dropped is not None:
                learns = learns & (signal.dropped.to(learns.device) == 0)
            self._entries.clamp_(grads, limits[0], scale, learns[0])
        usable = (before > 0) & before.isfinite()
        factor = torch.where(usable, self._norm(grads) / before, 1.0).to(step.factor)
        return step._replace(factor=factor * step.factor)

    def _norm(self, grads: Gradients) -> Tensor:
        return combine(self.partition.measure(grads, 2.0)[0], 2.0)


def _hands_of(policy: Threshold) -> tuple[Hand | None, Hand | None]:
    """At an optimizer's step and by hand; none for what only measures."""
    if isinstance(policy, Fixed) and policy.value == math.inf:
        return None, None
    kind = type(policy).__name__
    attached = Hand(f"a clipper ({kind}) attached to the optimizer's step")
    return attached, Hand(f"clip() of a clipper ({kind})")
