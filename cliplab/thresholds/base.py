"""The policy: what says how large a size may be now, and keeps its state clean.

A policy is ``init(n_parts, device)`` and ``policy(sizes, context) -> limits``. A part that is
inactive or not finite at a step neither changes nor advances the policy's state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

State = dict[str, Tensor]


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


class Known(NamedTuple):
    """Measurements that were made already."""

    total_norm: Tensor | None = None
    weight_norms: Tensor | None = None
    numels: Tensor | None = None


NOTHING = Known()


@dataclass(frozen=True)
class Context:
    """What a policy may know beside the sizes.

    ``active`` is the mask of parts that count, ``[n_parts]``; ``step``, ``lr`` and ``loss`` are
    those of the step (``lr`` is a tensor where reading it would wait for a device). ``measured``
    gives ``total_norm`` (scalar: the norm of all finite active parts as one vector) and,
    ``[n_parts]`` each, ``weight_norms`` and ``numels`` (the number of entries of every part), when
    they are asked for. ``clean``: all parts are known, without a look at a device, to be active and
    finite.
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


def _needed(value: Tensor | None, what: str) -> Tensor:
    if value is None:
        raise ValueError(f"this policy needs {what}: use it through a Clipper")
    return value


class Threshold:
    """Base of the policies: holds the state, and keeps it from what must not enter it.

    A subclass gives ``start`` (its first state, every tensor ``[n_parts, ...]``) and ``step``
    (a pure function: sizes ``[n_parts]`` and state to limits ``[n_parts]`` and the next state).
    State that is too large to be copied at every step may be counted up in place instead and left
    out of what ``step`` returns; then nothing but ``context.active`` keeps the other parts clean
    (``Percentile`` does so with its histograms).
    """

    stateless = False  # True: limits do not depend on sizes, so it also works entry by entry

    def __init__(self) -> None:
        self.state: State = {}

    def init(self, n_parts: int, device: torch.device | str = "cpu") -> None:
        """Start afresh for ``n_parts`` parts."""
        state = self.start(n_parts, torch.device(device))  # in fp32, whatever the default dtype
        self.state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}

    def __call__(self, sizes: Tensor, context: Context) -> Tensor:
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
        """Return the first state."""
        return {}

    def step(self, sizes: Tensor, state: State, context: Context) -> tuple[Tensor, State]:
        """Return the limits for these sizes, and the next state."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state: tensors and numbers only."""
        return {name: tensor.clone() for name, tensor in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; ``ValueError`` if its names or shapes are another policy's."""
        self.check_state_dict(state)
        for name, tensor in state.items():
            self.state[name] = tensor.to(self.state[name]).clone()

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if a saved state is not of this policy and number of parts."""
        if not isinstance(state, Mapping):
            raise ValueError(f"{type(self).__name__}: expected a state, got {state!r}")
        have = {name: tuple(tensor.shape) for name, tensor in self.state.items()}
        given = {name: tuple(getattr(entry, "shape", ())) for name, entry in state.items()}
        if have != given:
            raise ValueError(f"{type(self).__name__}: expected state {have}, got {given}")

    def __repr__(self) -> str:
        own = {k: v for k, v in vars(self).items() if k != "state"}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in own.items())})"
