"""A clipper's choices; what its parts are, their names, and whose threshold rules each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cliplab.parts.partition import Partition
from cliplab.parts.row_parts import RowParts
from cliplab.parts.selection import Group, Parameters
from cliplab.parts.tensor_parts import TensorParts
from cliplab.parts.units import member_views, unit_views
from cliplab.thresholds import Switch, Threshold, as_policy

Scope = Literal["global", "group", "tensor", "unit", "element", "member"]
Mode = Literal["rescale", "soft", "skip"]
NonFinite = Literal["raise", "skip", "zero", "propagate"]


def divide(
    scope: Scope, groups: Sequence[Group], source: Parameters
) -> tuple[Partition, list[str], list[int]]:
    """Return the partition, a label for every part, and the number of every part's group."""
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
    labels = []  # of very many units the history has numbers only
    if rows.n_parts <= 100_000:
        labels = [f"{n}[{i}]" for n, k in zip(names, rows.counts, strict=True) for i in range(k)]
    return rows, labels, [i for i, k in zip(position, rows.counts, strict=True) for _ in range(k)]


def policy_of_groups(
    policy: Threshold, groups: Sequence[Group], group_of: Sequence[int]
) -> Threshold:
    """One policy for all parts, groups with a threshold of their own switched to theirs."""
    own = {i: as_policy(g.threshold) for i, g in enumerate(groups) if g.threshold is not None}
    if not own:
        return policy
    cases = [([i not in own for i in group_of], policy)]
    cases += [([i == group for i in group_of], theirs) for group, theirs in own.items()]
    return Switch([(mask, theirs) for mask, theirs in cases if any(mask)])
