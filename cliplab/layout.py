"""The output units of a weight: one row or filter each, on the axis its layer puts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd


class UnitView(NamedTuple):
    """``tensor.view(shape)`` has one unit for every index outside ``dims``."""

    shape: tuple[int, ...]
    dims: tuple[int, ...]


def unit_views(source: Any, params: Sequence[Tensor]) -> list[UnitView]:
    """How the units of every tensor are seen.

    ``[out, in, ...]`` of Linear and ConvNd and ``[rows, dim]`` of Embedding have a unit for each
    index of the first axis; ConvTransposeNd's ``[in, out / groups, ...]`` one for each group and
    output channel, if ``source`` is the module that holds it; a vector or scalar is one unit.
    """
    modules = source.modules() if isinstance(source, nn.Module) else ()
    transposed = {id(m.weight): m.groups for m in modules if isinstance(m, _ConvTransposeNd)}
    return [_view(tuple(p.shape), transposed.get(id(p))) for p in params]


def member_views(params: Sequence[Tensor]) -> list[UnitView]:
    """How the members of stacked tensors ``[members, ...]`` are seen; ``ValueError`` if not."""
    members = {p.shape[0] if p.ndim else 0 for p in params}
    if len(members) > 1 or members == {0}:
        shapes = [tuple(p.shape) for p in params]
        raise ValueError(f'scope "member" needs one common leading axis, got shapes {shapes}')
    return [UnitView(tuple(p.shape), tuple(range(1, p.ndim))) for p in params]


def _view(shape: tuple[int, ...], groups: int | None) -> UnitView:
    if groups is None:
        return UnitView(shape, tuple(range(int(len(shape) > 1), len(shape))))
    if groups == 1:
        return UnitView(shape, (0, *range(2, len(shape))))
    split = (groups, shape[0] // groups, *shape[1:])
    return UnitView(split, (1, *range(3, len(split))))
