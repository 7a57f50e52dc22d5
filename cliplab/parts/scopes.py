"""A clipper's choices; what its parts are, their names, and whose threshold rules each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cliplab.parts.partition import Partition
from cliplab.parts.row_parts import RowParts
from cliplab.parts.selection import Group, Parameters
from cliplab.parts.tensor_parts import TensorParts
from cliplab.parts.units import member_views, unit_views

Scope = Literal["global", "group", "tensor", "unit", "element", "member"]


def divide(
    scope: Scope, groups: Sequence[Group], source: Parameters
) -> tuple[Partition, list[str], list[int]]:
    """Return the partition, a label for every part, and the number of every part's group."""
    partition, labels, group_of = _divided(scope, groups, source)
    partition.names = [name for group in groups for name in group.names]
    return partition, labels, group_of


def _divided(
    scope: Scope, groups: Sequence[Group], source: Parameters
) -> tuple[Partition, list[str], list[int]]:
    params = [p for group in groups for p in group.params]
    position = [i for i, group in enumerate(groups) for _ in group.params]
    names = [name or f"tensor {i}" for i, name in enumerate(n for g in groups for n in g.names)]
    if scope == "tensor":
        return TensorParts(params, [1] * len(params)), names, position
    if scope == "group":
        runs = [len(group.params) for group in groups]
        return TensorParts(params, runs), [g.label for g in groups], list(range(len(groups)))
    if scope in ("global", "element"):
        own = [i for i, group in enumerate(groups) if group.threshold is not None]
        shared = len(groups) - len(own)
        runs = [sum(len(g.params) for g in groups[:shared])] * (shared > 0)
        runs += [len(groups[i].params) for i in own]
        labels = ["all"] * (shared > 0) + [groups[i].label for i in own]
        return TensorParts(params, runs), labels, [0] * (shared > 0) + own
    if scope == "member":
        if any(group.threshold is not None for group in groups):
            raise ValueError('scope "member" takes one policy: use Switch for several')
        rows = RowParts(params, member_views(params), members=True)
        return rows, [f"member {i}" for i in range(rows.n_parts)], [0] * rows.n_parts
    rows = RowParts(params, unit_views(source, params))
    if not rows.n_parts:
        raise ValueError('scope "unit" needs a unit: all parameters are empty')
    labels = []  # of very many units the history has numbers only
    if rows.n_parts <= 100_000:
        labels = [f"{n}[{i}]" for n, k in zip(names, rows.counts, strict=True) for i in range(k)]
    return rows, labels, [i for i, k in zip(position, rows.counts, strict=True) for _ in range(k)]
