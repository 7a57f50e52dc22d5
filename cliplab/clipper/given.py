"""Gradients that are handed over instead of lying at the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cliplab.checks import described, near
from cliplab.norms import is_partial, is_sharded, local
from cliplab.parts import Gradients, plain_names

GivenGradients = Sequence[Tensor | None] | Mapping[str, Tensor | None]


class Slots:
    """Where gradients that are given belong: a clipper's parameters, by position and by name.

    A module's other names are known too: what the clipper leaves alone may be given, and is left
    alone.
    """

    def __init__(
        self, params: Sequence[Tensor], names: Sequence[str | None], source: object
    ) -> None:
        self._params = params
        self._names = [f"tensor {i}" if name is None else name for i, name in enumerate(names)]
        self._position = {name: i for i, name in enumerate(names) if name is not None}
        self._others: set[str] = set()
        if isinstance(source, nn.Module):
            every = plain_names(name for name, _ in source.named_parameters())
            self._others = set(every.values()) - self._position.keys()

    def sorted(self, grads: GivenGradients) -> Gradients:
        """The gradients in the order of the parameters, None for none; ``ValueError`` by name."""
        tensors = self._by_name(grads) if isinstance(grads, Mapping) else _listed(grads)
        if len(tensors) != len(self._params):
            raise ValueError(
                f"grads must hold one for each of the clipper's {len(self._params)} parameters "
                f"(None where there is none), got {len(tensors)}"
            )
        seen: dict[int, str] = {}
        for name, p, tensor in zip(self._names, self._params, tensors, strict=True):
            if tensor is not None:
                _check(name, p, tensor)
                other = seen.setdefault(_place(tensor), name)
                if other is not name:
                    raise ValueError(
                        f"the gradients of {other} and {name} lie in the same memory, and each "
                        "would be clipped twice: clone() one of them"
                    )
        return tensors

    def _by_name(self, grads: Mapping[str, Tensor | None]) -> list[Tensor | None]:
        if not self._position:
            raise ValueError(
                "grads by name need a clipper of a module or of named parameters, this one is of "
                "bare tensors: pass a sequence in their order"
            )
        found: list[Tensor | None] = [None] * len(self._params)
        if any(not isinstance(name, str) for name in grads):
            raise ValueError(f"the names of grads must be text, got {described([*grads])}")
        plain = plain_names(grads)
        for name, tensor in grads.items():
            own = name if name in self._position or name in self._others else plain[name]
            if own in self._position:
                found[self._position[own]] = tensor
            elif own not in self._others:
                hint = near(own, self._position)
                raise ValueError(f"grads holds {name!r}, which the clipper does not know{hint}")
        return found


def _listed(grads: object) -> list[Tensor | None]:
    if isinstance(grads, Tensor | str) or not isinstance(grads, Sequence):
        raise ValueError(
            "grads must be a sequence of tensors in the order of clipper.params, or a mapping of "
            f"names to tensors, got {described(grads)}"
        )
    return list(grads)


def _check(name: str, p: Tensor, tensor: Any) -> None:
    """``ValueError`` for what cannot be the gradient of a parameter, or not be written to."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"the gradient of {name} must be a tensor, got {described(tensor)}")
    for what in ("shape", "dtype", "device"):
        own, given = getattr(p, what), getattr(tensor, what)
        if own != given:
            own, given = (tuple(x) if what == "shape" else x for x in (own, given))
            raise ValueError(f"the gradient of {name} has {what} {given}, the parameter {own}")
    if is_sharded(tensor) != is_sharded(p):
        raise ValueError(f"of {name} its gradient or itself is a DTensor, not both: shard both")
    if is_partial(tensor):
        raise ValueError(f"the gradient of {name} is partial: sum it over the ranks first")
    if tensor.layout is not torch.strided:
        whole_rows = tensor.layout is torch.sparse_coo and tensor.sparse_dim() == 1
        if not (whole_rows and tensor.is_coalesced()):
            raise ValueError(
                f"the gradient of {name} must be dense, or sparse, coalesced and of whole rows, "
                f"got {tensor.layout}"
            )
        return
    held = local(tensor)
    if any(step == 0 and size > 1 for step, size in zip(held.stride(), held.shape, strict=True)):
        raise ValueError(
            f"entries of the gradient of {name} share memory (it is expanded) and cannot be "
            "clipped in place: clone() it"
        )


def _place(tensor: Tensor) -> int:
    """Where a gradient begins in memory; of one without entries, or sparse, itself."""
    if tensor.layout is not torch.strided or not local(tensor).numel():
        return id(tensor)
    return local(tensor).data_ptr()
