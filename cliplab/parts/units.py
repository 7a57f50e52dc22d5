"""The output units of a weight: one row or filter each, on the axis its layer puts them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from cliplab.checks import may_look
from cliplab.norms import all_row_norms, flagged

# a weight's names as a parameter: its own, and those of pruning and of the old forms of its norms
WEIGHTS = {"weight", "weight_orig", "weight_g", "weight_v"}


class UnitView(NamedTuple):
    """``tensor.view(shape)`` has one unit for every index outside ``dims``."""

    shape: tuple[int, ...]
    dims: tuple[int, ...]

    @property
    def kept(self) -> list[int]:
        """``shape`` with 1 for every axis in ``dims``: what a value for each unit broadcasts as."""
        return [1 if d in self.dims else size for d, size in enumerate(self.shape)]


def unit_views(source: Any, params: Sequence[Tensor]) -> list[UnitView]:
    """How the units of every tensor are seen.

    ``[out, in, ...]`` of Linear and ConvNd and ``[rows, dim]`` of Embedding have a unit for each
    index of the first axis; ConvTransposeNd's ``[in, out / groups, ...]`` one for each group and
    output channel, if ``source`` is the module that holds it; a vector or scalar is one unit. What
    a weight is computed from (spectral or weight norm, pruning) has the axes of the weight.
    """
    modules = source.modules() if isinstance(source, nn.Module) else ()
    transposed = {
        id(p): m.groups for m in modules if isinstance(m, _ConvTransposeNd) for p in _stored(m)
    }
    return [_view(tuple(p.shape), transposed.get(id(p))) for p in params]


def _stored(module: nn.Module) -> Iterator[Tensor]:
    """What the weight of a module lies in; read there, for reading ``weight`` may compute it.

    Spectral norm takes a power iteration each time.
    """
    yield from (p for name, p in module._parameters.items() if p is not None and name in WEIGHTS)
    if is_parametrized(module, "weight"):
        originals = cast("nn.ModuleDict", module.parametrizations)["weight"]
        yield from originals.parameters(recurse=False)


def member_views(params: Sequence[Tensor]) -> list[UnitView]:
    """How the members of stacked tensors ``[members, ...]`` are seen; ``ValueError`` if not."""
    members = {p.shape[0] if p.ndim else 0 for p in params}
    if len(members) > 1 or members == {0}:
        shapes = [tuple(p.shape) for p in params]
        raise ValueError(f'scope "member" needs one common leading axis, got shapes {shapes}')
    return [UnitView(tuple(p.shape), tuple(range(1, p.ndim))) for p in params]


def unit_norms(tensors: Sequence[Tensor], views: Sequence[UnitView]) -> Tensor:
    """L2 norms of all units of plain tensors, none empty, one after the other: ``[n_units]``.

    >>> weights = [torch.tensor([[3.0, 4.0], [1e25, 0.0]]), torch.ones(4)]
    >>> unit_norms(weights, unit_views(None, weights))
    tensor([5.0000e+00, 1.0000e+25, 2.0000e+00])
    """
    return all_row_norms(_rows(tensors, views), [view.dims for view in views])


def scale_units_(tensors: Sequence[Tensor], views: Sequence[UnitView], factor: Tensor) -> None:
    """Multiply all units in place by factors in the order of ``unit_norms``, ``[n_units]``.

    >>> weights = [torch.ones(2, 2), torch.ones(4)]
    >>> scale_units_(weights, unit_views(None, weights), torch.tensor([1.0, 2.0, 3.0]))
    >>> weights
    [tensor([[1., 1.], [2., 2.]]), tensor([3., 3., 3., 3.])]
    """
    kept = [view.kept for view in views]
    counts = [math.prod(shape) for shape in kept]
    changed, own = acting(factor, counts), torch.split(factor, counts)
    if changed:
        rows = _rows([tensors[i] for i in changed], [views[i] for i in changed])
        torch._foreach_mul_(rows, [own[i].view(kept[i]) for i in changed])


def acting(factor: Tensor, counts: Sequence[int]) -> Sequence[int]:
    """Which tensors have a factor that is not 1, of ``counts[i]`` each; all where nobody may look.

    A write for nothing would cost as much as a measurement.
    """
    if not may_look(factor):
        return range(len(counts))
    low, high = (float(end) for end in factor.aminmax())
    if low == high == 1:
        return ()
    if high < 1 or low > 1:
        return range(len(counts))
    return flagged(factor != 1, counts)


def _rows(tensors: Sequence[Tensor], views: Sequence[UnitView]) -> list[Tensor]:
    same = zip(tensors, views, strict=True)
    return [t if t.shape == view.shape else t.view(view.shape) for t, view in same]


def _view(shape: tuple[int, ...], groups: int | None) -> UnitView:
    if groups is None or len(shape) < 3:
        return UnitView(shape, tuple(range(int(len(shape) > 1), len(shape))))
    if groups == 1 or shape[0] % groups:  # one norm for all inputs has no axis of groups
        return UnitView(shape, (0, *range(2, len(shape))))
    split = (groups, shape[0] // groups, *shape[1:])
    return UnitView(split, (1, *range(3, len(split))))
