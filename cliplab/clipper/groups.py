"""Groups of parts: whose threshold rules each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cliplab.checks import described
from cliplab.parts import Group
from cliplab.thresholds import Switch, Threshold, as_policy

Thresholds = float | Threshold | Mapping[str, float | Threshold]


class ByName(Switch):
    """The policies of name patterns, each for the parts that its pattern rules."""

    def __init__(self, rules: Mapping[str, tuple[Sequence[bool], Threshold]]) -> None:
        super().__init__(list(rules.values()))
        self.patterns = list(rules)

    @property
    def inner(self) -> dict[str, Threshold]:
        """The policies by pattern."""
        return {name: own for name, (_, own) in zip(self.patterns, self.cases, strict=True)}

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {own!r}' for name, own in self.inner.items())}}}"


def policies_by_name(threshold: Thresholds) -> dict[str, Threshold] | None:
    """The policy of every pattern; None for a threshold that goes by no names.

    ``ValueError`` for what is no pattern, and, with its pattern, for what is no threshold.
    """
    if not isinstance(threshold, Mapping):
        return None
    if not threshold or not all(isinstance(pattern, str) for pattern in threshold):
        raise ValueError(
            'threshold by name takes patterns, {"*.bias": 0.5, "*": 1.0}, got '
            f"{described(threshold)}"
        )
    policies = {}
    for pattern, given in threshold.items():
        try:
            policies[pattern] = as_policy(given)
        except ValueError as error:
            raise ValueError(f"{pattern!r}: {error}") from None
    return policies


def policy_of_groups(
    threshold: Thresholds, groups: Sequence[Group], group_of: Sequence[int]
) -> Threshold:
    """One policy for all parts, groups with a threshold of their own switched to theirs."""
    if isinstance(threshold, Mapping):
        return ByName(
            {g.label: ([i == k for k in group_of], g.threshold) for i, g in enumerate(groups)}
        )
    policy = as_policy(threshold)
    own = {i: as_policy(g.threshold) for i, g in enumerate(groups) if g.threshold is not None}
    if not own:
        return policy
    cases = [([i not in own for i in group_of], policy)]
    cases += [([i == group for i in group_of], theirs) for group, theirs in own.items()]
    return Switch([(mask, theirs) for mask, theirs in cases if any(mask)])
