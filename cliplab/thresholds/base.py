"""The policy: what says how large a size may be now, and keeps its state clean.

A policy is ``init(n_parts, device)`` and ``policy(sizes, context) -> limits``. A part that is
inactive or not finite at a step neither changes nor advances the policy's state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from cliplab.checks import check_positive, described
from cliplab.thresholds.response import Limits

State = dict[str, Tensor]
SINGLE = torch.finfo(torch.float32)  # of every state
_REAL = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_WHOLE = (torch.int64, torch.int32)


class Measured(Protocol):
    """What can be known of a gradient beside its sizes; None where it is not."""

    @property
    def total_norm(self) -> Tensor | None:
        """Norm of all finite active parts as one vector: a scalar."""

    @property
    def weight_norms(self) -> Tensor | None:
        """Norm of the weights of every part: ``[n_parts]``."""

    @property
    def numels(self) -> Tensor | None:
        """Number of entries of every part: ``[n_parts]``."""

    @property
    def surprise(self) -> Tensor | None:
        """Root mean square of ``g / sqrt(v)`` of every part of an update: ``[n_parts]``."""


class Known(NamedTuple):
    """Measurements that were made already.

    Args:
        total_norm: norm of the whole gradient, a scalar.
        weight_norms: norms of the weights, ``[n_parts]``.
        numels: numbers of entries, ``[n_parts]``.
        surprise: root mean squares of ``g / sqrt(v)``, ``[n_parts]``.
    """

    total_norm: Tensor | None = None
    weight_norms: Tensor | None = None
    numels: Tensor | None = None
    surprise: Tensor | None = None


NOTHING = Known()


@dataclass(frozen=True)
class Context:
    """What a policy may know beside the sizes.

    ``active`` is the mask of parts that count, ``[n_parts]``; ``step``, ``lr`` and ``loss`` are
    those of the step (``lr`` is a tensor where reading it would wait for a device). ``measured``
    gives ``total_norm`` (scalar: the norm of all finite active parts as one vector) and,
    ``[n_parts]`` each, ``weight_norms``, ``numels`` (the number of entries of every part) and, of
    an update, ``surprise`` (root mean square of ``g / sqrt(v)``), when they are asked for.
    ``clean``: all parts are known, without a look at a device, to be active and finite.

    Args:
        active: bools ``[n_parts]``.
        step: number of the step, from 0.
        lr: learning rate, or None where it is not known.
        loss: a scalar, or None where none was given.
        measured: what else can be asked for.
        clean: whether all parts are known to be active and finite.
    """

    active: Tensor
    step: int = 0
    lr: float | Tensor | None = None
    loss: Tensor | None = None
    measured: Measured = NOTHING
    clean: bool = False

    @property
    def total_norm(self) -> Tensor:
        """Norm of all parts as one vector: a scalar."""
        return _needed(self.measured.total_norm, "the total norm")

    @property
    def weight_norms(self) -> Tensor:
        """Norm of the weights of every part: ``[n_parts]``."""
        return _needed(self.measured.weight_norms, "the weights' norms")

    @property
    def numels(self) -> Tensor:
        """Number of entries of every part: ``[n_parts]``."""
        return _needed(self.measured.numels, "the parts' sizes in entries")

    @property
    def surprise(self) -> Tensor:
        """Root mean square of ``g / sqrt(v)`` of every part of an update: ``[n_parts]``."""
        if self.measured.surprise is None:
            raise ValueError(
                "this policy needs an optimizer's second moments: use it through a Clipper with "
                'target="update", attached to an optimizer of the Adam family'
            )
        return self.measured.surprise

    def scalar_loss(self, sizes: Tensor) -> Tensor:
        """The loss as the sizes are, for every part: ``[n_parts]``; ``ValueError`` without one.

        Args:
            sizes: ``[n_parts]``, whose type and device the answer has.
        """
        if self.loss is None:
            raise ValueError(
                "this policy needs the loss of every step: clip(loss) or observe(loss)"
            )
        if self.loss.numel() != 1:
            raise ValueError(f"loss must be a scalar, got shape {tuple(self.loss.shape)}")
        return self.loss.detach().to(sizes).reshape(1).expand_as(sizes)


def _needed(value: Tensor | None, what: str) -> Tensor:
    if value is None:
        raise ValueError(f"this policy needs {what}: use it through a Clipper")
    return value


def check_single(name: str, value: object, *, zero: bool = False) -> float:
    """Return ``value`` as a float, if single precision, which all states have, can hold it.

    ``ValueError`` for what is no number, below 0, infinite, too large or too small.
    """
    number, least = check_positive(name, value, zero=zero), 0.0 if zero else SINGLE.tiny
    if not least <= number <= SINGLE.max:
        bounds = f"{least:.3g} and {SINGLE.max:.3g} (fp32)"
        raise ValueError(f"{name} must be between {bounds}, got {described(value)}")
    return number


def check_decay(name: str, value: object) -> float:
    """Return ``value`` if it is a share of the past that is kept: in [0, 1)."""
    share = check_single(name, value, zero=True)
    if share >= 1:
        raise ValueError(f"{name} must be >= 0 and < 1, got {described(value)}")
    return share


def learnt_share(decay: float, count: Tensor) -> Tensor:
    """``1 - decay^count``, accurate for a decay near 1; a count of 0 as one of 1.

    Args:
        decay: share that is kept at a step, in [0, 1).
        count: steps so far, ``[n_parts]``.
    """
    log = math.log(decay) if decay else -math.inf
    return -torch.expm1(count.clamp(min=1).float() * log)


class Threshold:
    """Base of the policies: holds the state, and keeps it from what must not enter it.

    A subclass gives ``start`` (its first state, every tensor ``[n_parts, ...]``) and ``step``
    (a pure function: sizes ``[n_parts]`` and state to limits, ``[n_parts]`` or a ``Band`` of two,
    and the next state).
    State that is too large to be copied at every step may be counted up in place instead and left
    out of what ``step`` returns; then nothing but ``context.active`` keeps the other parts clean
    (``Percentile`` does so with its histograms).
    """

    stateless = False  # True: limits do not depend on sizes, so it also works entry by entry
    band = False  # True: limits are bands, or may be

    def __init__(self) -> None:
        self.state: State = {}

    def init(self, n_parts: int, device: torch.device | str = "cpu") -> None:
        """Start afresh for ``n_parts`` parts.

        Args:
            n_parts: number of parts.
            device: where the sizes will be.
        """
        with torch.inference_mode(False):  # what is counted up in place must be so anywhere
            state = self.start(n_parts, torch.device(device))
        self.state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}

    def __call__(self, sizes: Tensor, context: Context) -> Limits:
        """Return limits ``[n_parts]`` for sizes ``[n_parts]``, and learn from the active parts."""
        if context.clean:
            limits, after = self.step(sizes, self.state, context)
            self.state.update(after)
            return limits
        sizes = sizes.float()  # as the state: what overflows it must not enter it
        active = context.active & sizes.isfinite()
        sizes = torch.where(active, sizes, torch.zeros_like(sizes))
        limits, after = self.step(sizes, self.state, replace(context, active=active))
        for name, new in after.items():
            mask = active.reshape(-1, *[1] * (new.ndim - 1))
            self.state[name] = torch.where(mask, new, self.state[name])
        return limits

    def start(self, n_parts: int, device: torch.device) -> State:
        """Return the first state.

        Args:
            n_parts: number of parts.
            device: where the state is kept.
        """
        return {}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Limits, State]:
        """Return the limits for these sizes, and the next state.

        Args:
            sizes: of the parts, ``[n_parts]``, in fp32 or fp64.
            state: as the last step left it.
            context: what else is known of the step.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state: tensors and numbers only."""
        return {name: tensor.clone() for name, tensor in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state, of tensors, NumPy arrays or lists, whole or not at all.

        ``ValueError`` if names, shapes, or kinds of numbers are not this policy's, or if there is
        a NaN or a count below 0 in it.

        Args:
            state: as ``state_dict`` gave it.
        """
        self.check_state_dict(state)
        with torch.inference_mode(False):
            for name, own in self.state.items():
                self.state[name] = as_tensor(state[name]).to(own)

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if a saved state is not of this policy and number of parts.

        Args:
            state: as ``state_dict`` gave it.
        """
        kind = type(self).__name__
        if not isinstance(state, Mapping):
            raise ValueError(f"{kind}: expected a state, got {described(state)}")
        have = {name: tuple(tensor.shape) for name, tensor in self.state.items()}
        given = {name: _shape_of(entry) for name, entry in state.items()}
        if have != given:
            raise ValueError(f"{kind}: expected state {have}, got {given}")
        for name, own in self.state.items():
            _check_entry(f"{kind}: {name}", state[name], own)

    def __repr__(self) -> str:
        own = {k: v for k, v in vars(self).items() if k != "state"}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in own.items())})"


def as_tensor(entry: Any) -> Tensor:
    """An entry of a state as a tensor of its own, wherever states lie by default."""
    if isinstance(entry, Tensor):
        return entry.detach().clone()
    held = torch.tensor(entry, device="cpu")
    if isinstance(entry, list) and held.is_floating_point():  # of the width that is the default
        return torch.tensor(entry, dtype=torch.float64, device="cpu")
    return held


def _shape_of(entry: Any) -> tuple[int, ...]:
    try:
        return tuple(as_tensor(entry).shape if isinstance(entry, list) else entry.shape)
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError):
        return ()


def _check_entry(name: str, entry: Any, own: Tensor) -> None:
    """Raise ``ValueError`` unless an entry of a state can take the place of ``own``."""
    try:
        new = as_tensor(entry)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ValueError(f"{name} must be a tensor, got {described(entry)}") from None
    real = own.is_floating_point()
    fits = new.dtype in (_REAL if real else _WHOLE) and new.layout is torch.strided
    if not fits or new.is_meta > own.is_meta:
        raise ValueError(f"{name} must be like {described(own)}, got {described(new)}")
    if not new.is_meta and bool((new.isnan() if real else new < 0).any()):
        raise ValueError(f"{name} must not hold {'NaN' if real else 'counts below 0'}")
