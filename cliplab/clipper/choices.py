"""The choices of a clipper beside its parameters and its policy, and what does not go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cliplab.checks import check_choice, check_flag, check_norm_type, check_positive, described
from cliplab.clipper.ranks import RankParts
from cliplab.parts import Partition, Scope
from cliplab.thresholds import EntryDeviations, Mode, NonFinite, Threshold, all_of

Target = Literal["gradient", "update"]


@dataclass(frozen=True)
class Choices:
    """What is measured, what follows, and of what; ``ValueError`` for what is none of them."""

    scope: Scope
    norm_type: float
    mode: Mode
    nonfinite: NonFinite
    target: Target
    eps: float
    check_ranks: bool

    def __post_init__(self) -> None:
        check_choice("target", self.target, Target)
        check_choice("scope", self.scope, Scope)
        check_choice("mode", self.mode, Mode)
        check_choice("nonfinite", self.nonfinite, NonFinite)
        object.__setattr__(self, "norm_type", check_norm_type(self.norm_type))
        object.__setattr__(self, "eps", check_positive("eps", self.eps, zero=True))
        check_flag("check_ranks", self.check_ranks)
        self._check_together()

    def _check_together(self) -> None:
        scope, mode = self.scope, self.mode
        if mode == "skip" and scope not in ("global", "group", "tensor"):
            raise ValueError(f'mode "skip" needs scope global, group or tensor, got {scope!r}')
        if mode in ("soft", "normalise") and scope == "element":
            raise ValueError(f'mode "{mode}" cannot be used with scope "element"')
        if self.target == "update" and "skip" in (mode, self.nonfinite):
            raise ValueError(
                'target "update" cannot skip a step: the optimizer\'s state has moved when its '
                'update is known; choose another mode and nonfinite than "skip"'
            )
        if self.eps == math.inf:
            raise ValueError(f"eps must be finite, got {self.eps!r}")
        if self.eps and scope == "element":
            raise ValueError(
                f'eps={self.eps!r} cannot be used with scope "element": nothing is divided'
            )
        if self.eps and mode not in ("rescale", "normalise"):
            raise ValueError(f'eps={self.eps!r} needs mode rescale or normalise, got "{mode}"')

    def check_policy(self, policy: Threshold, partition: Partition) -> None:
        """``ValueError`` for a policy, or parts, that do not go with the choices."""
        self._check_entries(policy, partition)
        if policy.band:
            self._check_band(policy)
        if self.target == "update" and isinstance(partition, RankParts):
            raise ValueError('target "update" is measured on each rank: leave reduce out')

    def _check_band(self, policy: Threshold) -> None:
        bad = {
            'scope "element"': self.scope == "element",
            f'mode "{self.mode}"': self.mode != "rescale",
            f"eps={self.eps!r}": self.eps > 0,
        }
        for what, is_so in bad.items():
            if is_so:
                raise ValueError(f"{what} cannot be used with a band, got {described(policy)}")

    def _check_entries(self, policy: Threshold, partition: Partition) -> None:
        """Whether single entries can be clamped by the policy, or none are."""
        alone = isinstance(policy, EntryDeviations)
        if self.scope == "element" and not alone and not policy.stateless:
            raise ValueError(
                'scope "element" needs a fixed threshold or EntryDeviations, for all groups the '
                f"same, got {described(policy)}"
            )
        some = any(isinstance(each, EntryDeviations) for each in all_of(policy))
        if some and self.scope != "element":
            raise ValueError(f'{described(policy)} needs scope "element", got {self.scope!r}')
        if alone and (partition.sharded or any(p.is_complex() for p in partition.params)):
            raise ValueError(f"{described(policy)} takes neither sharded nor complex parameters")
