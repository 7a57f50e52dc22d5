"""What optimizers hold: the one that really steps, and a clipper's parameters in its groups."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from operator import is_
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from cliplab.norms import is_sharded


def stepping_optimizer(given: Any) -> torch.optim.Optimizer:
    """The optimizer whose step runs torch's hooks: the one given, or the one that it wraps.

    A wrapper (of accelerate, Opacus, schedulefree, Lightning) holds one other optimizer.
    """
    found, seen = given, {id(given)}
    while not _runs_hooks(found):
        held = getattr(found, "__dict__", {}).values() if _steps(found) else ()
        inner = {id(x): x for x in held if _steps(x) and id(x) not in seen}
        if len(inner) != 1:
            raise ValueError(_not_an_optimizer(given, len(inner)))
        seen |= inner.keys()
        (found,) = inner.values()
    return found


def _steps(x: Any) -> bool:
    return hasattr(x, "param_groups") and callable(getattr(x, "step", None))


def _runs_hooks(x: Any) -> TypeGuard[torch.optim.Optimizer]:
    """Wrappers that subclass ``Optimizer`` without its ``__init__`` have no hooks."""
    hooks = "_optimizer_step_pre_hooks" in getattr(x, "__dict__", {})
    return isinstance(x, torch.optim.Optimizer) and hooks and hasattr(type(x).step, "hooked")


def _not_an_optimizer(given: Any, n_inner: int) -> str:
    name = type(given).__name__
    if isinstance(given, nn.Module):
        return f"attach takes the optimizer, got the module {name}: pass the optimizer"
    if not _steps(given):
        return f"attach takes a torch.optim.Optimizer, got {name}"
    return (
        f"{name} runs no step hooks and holds {n_inner or 'no'} optimizers: pass the "
        "torch.optim.Optimizer whose step() it calls"
    )


class Share(NamedTuple):
    """A group of an optimizer, and which of a clipper's parameters stand in it."""

    optimizer: torch.optim.Optimizer
    group: dict[str, Any]
    held: list[int]


class Holding:
    """A clipper's parameters in the groups of optimizers, as they were when last looked at.

    ``whole``: whether there is one optimizer, and it steps nothing else. A frozen parameter belongs
    to neither, until it is unfrozen.
    """

    def __init__(
        self, params: Sequence[Tensor], optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        self._params, self._position = params, {id(p): i for i, p in enumerate(params)}
        self._others: set[int] = set()
        self._look(optimizers)

    def follow(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Look again if the groups, or what is frozen in them, have changed.

        ``ValueError`` if a parameter of the clipper is no longer held; a warning if an optimizer
        now steps one that it did not step before and that is not the clipper's.
        """
        groups = _groups(optimizers)
        same = len(groups) == len(self._groups) and all(
            len(group["params"]) == len(seen) and all(map(is_, group["params"], seen))
            for group, seen in zip(groups, self._groups, strict=True)
        )
        if same and not any(p.requires_grad for p in self._frozen):
            return
        known = self._others
        self._look(optimizers)
        new = len(self._others - known)
        if new:
            warnings.warn(
                f"since attach the optimizer steps {new} more parameters that the clipper does not "
                "clip: if it should, detach() it and attach a Clipper that holds them too",
                UserWarning,
                stacklevel=4,
            )

    def rate(self, optimizers: Sequence[torch.optim.Optimizer]) -> Any:
        """The learning rate of the group with the clipper's first parameter; NaN for none."""
        return _groups(optimizers)[self._first].get("lr", math.nan)

    def shares(self, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[Share]:
        """Every group that holds some of the clipper's parameters."""
        owners = [optimizer for optimizer in optimizers for _ in optimizer.param_groups]
        for optimizer, group, held in zip(owners, _groups(optimizers), self._held, strict=True):
            if held:
                yield Share(optimizer, group, held)

    def _look(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        groups = [list(group["params"]) for group in _groups(optimizers)]
        every = [p for group in groups for p in group]
        stepped = {id(p) for p in every}
        missing = [p for p in self._params if id(p) not in stepped and p.requires_grad]
        if missing or stepped.isdisjoint(self._position):
            raise ValueError(_only_part(missing or self._params, self._params, groups, optimizers))
        if len(optimizers) > 1 and len(stepped) < len(every):
            raise ValueError("two of the optimizers hold the same parameter: whose step is it?")
        at = self._position
        others = [p for p in every if id(p) not in at]
        self._groups = groups
        self._held = [[at[id(p)] for p in group if id(p) in at] for group in groups]
        first = min(i for held in self._held for i in held)
        self._first = next(k for k, held in enumerate(self._held) if first in held)
        self._frozen = [p for p in others if not p.requires_grad]
        self._others = {id(p) for p in others if p.requires_grad}
        untouched = not any(p.requires_grad or p.grad is not None for p in others)
        self.whole = untouched and len(optimizers) == 1


def _groups(optimizers: Sequence[torch.optim.Optimizer]) -> list[dict[str, Any]]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def _only_part(
    missing: Sequence[Tensor],
    params: Sequence[Tensor],
    groups: Sequence[Sequence[Tensor]],
    optimizers: Sequence[torch.optim.Optimizer],
) -> str:
    several = len(optimizers) > 1
    who = "the optimizers hold" if several else "the optimizer holds"
    hint = "" if several else ", or give attach every optimizer that steps some of them"
    return (
        f"{who} only part of the clipper's parameters: {len(missing)} of {len(params)} are "
        f"missing; {_way_out(missing, groups)}{hint}"
    )


def _way_out(missing: Sequence[Tensor], groups: Sequence[Sequence[Tensor]]) -> str:
    if any(is_sharded(p) for group in groups for p in group) and not any(map(is_sharded, missing)):
        return "build the clipper after fully_shard, which replaces the model's parameters"
    return "build the clipper from what the optimizer holds, after whatever replaces parameters"
