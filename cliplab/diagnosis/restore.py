"""What a probe gives back: models, optimizers, gradients and random states, in place."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Restore = Callable[[], Any]


@contextlib.contextmanager
def restored(
    model: nn.Module | None, optimizer: torch.optim.Optimizer | None, tensors: Sequence[Tensor]
) -> Iterator[None]:
    """Give back everything bit by bit as it was, in the same objects, also after an error.

    Of the model: parameters, buffers and modes; of the optimizer: all it holds; of both and of
    further ``tensors``: gradients.
    """
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if started else ()
    memory = Memory()
    undo = [_keep_random()]
    if model is not None:
        for module in model.modules():
            undo += [memory.keep(module._parameters), memory.keep(module._buffers)]
        undo.append(_keep_modes(model))
        tensors = [*tensors, *model.parameters()]
    if optimizer is not None:
        undo.append(memory.keep(optimizer))
        tensors = [*tensors, *(p for g in optimizer.param_groups for p in g["params"])]
    undo.append(_keep_grads(tensors))
    with torch.random.fork_rng(devices), contextlib.ExitStack() as stack:
        for restore in undo:
            stack.callback(restore)
        yield


class Memory:
    """The contents of containers, optimizers and tensors, each kept once, to be put back in place.

    Anything else (numbers, text, functions, other objects) is put back as the object that it was.
    """

    def __init__(self) -> None:
        self._known: dict[int, Restore] = {}

    def keep(self, value: Any) -> Restore:
        """A function that gives ``value`` its contents back, and returns it."""
        if id(value) not in self._known:
            self._known[id(value)] = lambda: value  # for what holds itself
            self._known[id(value)] = self._once(value)
        return self._known[id(value)]

    def _once(self, value: Any) -> Restore:
        if isinstance(value, Tensor):
            return _keep_tensor(value)
        if isinstance(value, dict):
            pairs = {key: self.keep(held) for key, held in value.items()}
            return lambda: _refill(value, {key: held() for key, held in pairs.items()})
        if isinstance(value, list | deque | set):
            entries = [self.keep(entry) for entry in value]
            return lambda: _refill(value, [entry() for entry in entries])
        inside = value if isinstance(value, tuple) else ()
        if isinstance(value, torch.optim.Optimizer):
            inside = (vars(value),)
        restores = [self.keep(held) for held in inside]

        def restore() -> Any:
            for held in restores:
                held()
            return value

        return restore


def _refill(container: Any, contents: Any) -> Any:
    """The container, with these contents alone."""
    container.clear()
    if isinstance(container, list | deque):
        container.extend(contents)
    else:
        container.update(contents)
    return container


def _keep_tensor(tensor: Tensor) -> Restore:
    values = tensor.detach().clone()
    steps = (
        zip(tensor.stride(), tensor.shape, strict=True) if tensor.layout is torch.strided else ()
    )
    overlaps = any(step == 0 and length > 1 for step, length in steps)  # nothing can write to it

    @torch.no_grad()
    def restore() -> Tensor:
        if not overlaps:
            tensor.copy_(values)
        return tensor

    return restore


def _keep_grads(tensors: Sequence[Tensor]) -> Restore:
    kept = [(t, t.grad, None if t.grad is None else _keep_tensor(t.grad)) for t in tensors]

    def restore() -> None:
        for tensor, grad, values in kept:
            if values is not None:
                values()
            tensor.grad = grad

    return restore


def _keep_modes(model: nn.Module) -> Restore:
    kept = [(module, module.training) for module in model.modules()]

    def restore() -> None:
        for module, training in kept:
            module.training = training

    return restore


def _keep_random() -> Restore:
    """The random states of Python and, if it is there, NumPy; torch has its own way."""
    numpy: Any = sys.modules.get("numpy")
    state, arrays = random.getstate(), numpy.random.get_state() if numpy else None

    def restore() -> None:
        random.setstate(state)
        if numpy:
            numpy.random.set_state(arrays)

    return restore
