"""What an optimizer holds: the optimizer that really steps, and a clipper's parameters in it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from operator import is_
from typing import Any, TypeGuard

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


class Holding:
    """A clipper's parameters in an optimizer's groups, as they were when last looked at.

    ``group``: index of the group with the first of them. ``whole``: whether the optimizer steps
    nothing else. A frozen parameter belongs to neither, until it is unfrozen.
    """

    def __init__(self, params: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> None:
        self._params, self._ids = params, {id(p) for p in params}
        self._others: set[int] = set()
        self._look(optimizer)

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Look again if the groups, or what is frozen in them, have changed.

        ``ValueError`` if a parameter of the clipper is no longer held; a warning if the optimizer
        now steps one that it did not step before and that is not the clipper's.
        """
        groups = optimizer.param_groups
        same = len(groups) == len(self._groups) and all(
            len(group["params"]) == len(seen) and all(map(is_, group["params"], seen))
            for group, seen in zip(groups, self._groups, strict=True)
        )
        if same and not any(p.requires_grad for p in self._frozen):
            return
        known = self._others
        self._look(optimizer)
        new = len(self._others - known)
        if new:
            warnings.warn(
                f"since attach the optimizer steps {new} more parameters that the clipper does not "
                "clip: if it should, detach() it and attach a Clipper that holds them too",
                UserWarning,
                stacklevel=4,
            )

    def _look(self, optimizer: torch.optim.Optimizer) -> None:
        groups = [list(group["params"]) for group in optimizer.param_groups]
        group_of = {id(p): i for i, group in enumerate(groups) for p in group}
        missing = [p for p in self._params if id(p) not in group_of and p.requires_grad]
        held = [group_of[id(p)] for p in self._params if id(p) in group_of]
        if missing or not held:
            n_missing = len(missing) or len(self._params)
            raise ValueError(
                f"the optimizer holds only part of the clipper's parameters: {n_missing} of "
                f"{len(self._params)} are missing; {_way_out(missing, groups)}"
            )
        others = [p for group in groups for p in group if id(p) not in self._ids]
        self._groups, self.group = groups, held[0]
        self._frozen = [p for p in others if not p.requires_grad]
        self._others = {id(p) for p in others if p.requires_grad}
        self.whole = not any(p.requires_grad or p.grad is not None for p in others)


def _way_out(missing: Sequence[Tensor], groups: Sequence[Sequence[Tensor]]) -> str:
    if any(is_sharded(p) for group in groups for p in group) and not any(map(is_sharded, missing)):
        return "build the clipper after fully_shard, which replaces the model's parameters"
    return "build the clipper from what the optimizer holds, after whatever replaces parameters"
