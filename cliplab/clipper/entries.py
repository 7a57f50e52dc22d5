"""Which policies go with scope "element"."""

from __future__ import annotations

from cliplab.checks import described
from cliplab.clipper.telling import all_of
from cliplab.parts import Partition, Scope
from cliplab.thresholds import EntryDeviations, Threshold


def check_entries(policy: Threshold, scope: Scope, partition: Partition) -> None:
    """``ValueError`` unless single entries can be clamped by the policy, or none are."""
    alone = isinstance(policy, EntryDeviations)
    if scope == "element" and not alone and not policy.stateless:
        raise ValueError(
            'scope "element" needs a fixed threshold or EntryDeviations, for all groups the same, '
            f"got {described(policy)}"
        )
    if any(isinstance(each, EntryDeviations) for each in all_of(policy)) and scope != "element":
        raise ValueError(f'{described(policy)} needs scope "element", got {scope!r}')
    if alone and (partition.sharded or any(p.is_complex() for p in partition.params)):
        raise ValueError(f"{described(policy)} takes neither sharded nor complex parameters")
