"""The policy of all parts: whose threshold rules each."""

from __future__ import annotations

from collections.abc import Sequence

from cliplab.parts import Group
from cliplab.thresholds import Switch, Threshold, as_policy


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
