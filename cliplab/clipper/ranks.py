"""Sizes over ranks that hold different tensors of the same parts, and ranks that should agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cliplab.checks import described
from cliplab.norms import DOUBLE, add_norms, over_ranks
from cliplab.parts import Gradients, Partition, Scope, TensorParts, listed

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    Reduce = ProcessGroup | Sequence[ProcessGroup] | Callable[[Tensor], Tensor]

EXPECTED = "process groups that this rank is in, or a function that sums a tensor over ranks"


class Ranks:
    """The ranks over which sizes are added up, as ``reduce`` gives them; ``what`` is its name.

    ``ValueError`` for anything else, and for a function where the norm is no sum.
    """

    def __init__(self, what: str, given: Any, norm_type: float) -> None:
        self._what = what
        self._sum: Callable[[Tensor], Any] | None = given if callable(given) else None
        self._groups = [] if callable(given) else _process_groups(what, given)
        if callable(given) and norm_type == math.inf:
            raise ValueError(
                f"{what}: norm_type inf takes process groups: a maximum is no sum, got "
                f"{described(given)}"
            )

    def __deepcopy__(self, memo: object) -> Ranks:
        return self  # a process group is no data

    def add(self, norms: Tensor, active: Tensor, norm_type: float) -> tuple[Tensor, Tensor]:
        """Norms ``[n_parts]`` over all ranks, from those of each in fp64, and what any has."""
        if self._sum is not None:
            powers = self._summed(norms.pow(norm_type))
            return powers.pow(1 / norm_type), self._summed(active.to(norms)) > 0
        both = torch.cat([norms, active.to(norms)])
        for group in self._groups:
            both = over_ranks(both, group, norm_type)
        return both[: len(norms)], both[len(norms) :] > 0

    def check_parts(self, n_parts: int, double: bool, device: torch.device) -> None:
        """``ValueError`` unless all ranks have as many parts in the same precision."""
        own = torch.tensor([n_parts, double], dtype=torch.float64, device=device)
        for group in self._groups:
            bounds = over_ranks(torch.cat([own, -own]), group, math.inf)
            most, any_double, least, all_double = bounds.abs().tolist()
            if most != least:
                raise ValueError(
                    f"{self._what}: ranks have from {least:.0f} to {most:.0f} parts: give all the "
                    "same groups and patterns, with no parameters where they hold none"
                )
            if any_double != all_double:
                raise ValueError(f"{self._what}: some ranks hold float64, and some do not")

    def _summed(self, numbers: Tensor) -> Tensor:
        assert self._sum is not None
        total = self._sum(numbers)
        if not isinstance(total, Tensor) or total.shape != numbers.shape:
            raise ValueError(
                f"{self._what} must return the sums over ranks, a tensor of shape "
                f"{tuple(numbers.shape)}, got {described(total)}"
            )
        return total.to(numbers)


def _process_groups(what: str, given: Any) -> list[Any]:
    groups = list(given) if isinstance(given, list | tuple) else [given]
    known = torch.distributed.is_available()
    for group in groups:
        if not known or not isinstance(group, torch.distributed.ProcessGroup):
            raise ValueError(f"{what} must be {EXPECTED}, got {described(group)}")
    if not groups:
        raise ValueError(f"{what} must be {EXPECTED}, got {described(given)}")
    return groups


class RankParts(TensorParts):
    """Parts to which other ranks hold other tensors.

    ``shares``: the tensors, by id, whose powers are added up over some ranks first; then all are
    over ``last``. To make it, and to measure, is a collective. A copy has the same ranks.
    """

    def __init__(
        self, parts: TensorParts, shares: Sequence[tuple[Ranks, set[int]]], last: Ranks | None
    ) -> None:
        super().__init__(parts.params, parts.runs)
        self.names, self.shared, self._last = parts.names, True, last
        own = [next((r for r, ids in shares if id(p) in ids), None) for p in self.params]
        self._shares = [
            (ranks, [other is ranks for other in own])
            for ranks in (None, *(ranks for ranks, _ in shares))
        ]
        double = any(p.dtype in DOUBLE for p in self.params)
        self._dtype = torch.float64 if double else torch.float32
        for ranks in (*(ranks for ranks, _ in shares), last):
            if ranks is not None:
                ranks.check_parts(self.n_parts, double, self.device)
        self._numels = self._over_ranks(self._own_numels, 1.0)[0].round().long()

    def measure(self, tensors: Gradients, norm_type: float) -> tuple[Tensor, Tensor, bool]:
        """Sizes ``[n_parts]`` over all ranks, and the mask of the parts with a gradient on any."""

        def own(mine: Sequence[bool]) -> tuple[Tensor, Tensor]:
            held = [t if m else None for t, m in zip(tensors, mine, strict=True)]
            sizes, active, _ = super(RankParts, self).measure(held, norm_type)
            return sizes.double(), active

        norms, active = self._over_ranks(own, norm_type)
        return norms.to(self._dtype), active, False

    def numels(self) -> Tensor:
        """Number of entries of every part on all ranks, ``[n_parts]``."""
        return self._numels

    def _own_numels(self, mine: Sequence[bool]) -> tuple[Tensor, Tensor]:
        each = [p.numel() if m else 0 for p, m in zip(self.params, mine, strict=True)]
        counts = torch.tensor(each, dtype=torch.float64, device=self.device)
        parts = torch.stack([part.sum() for part in torch.split(counts, self.runs)])
        return parts, parts > 0

    def _over_ranks(
        self, own: Callable[[Sequence[bool]], tuple[Tensor, Tensor]], norm_type: float
    ) -> tuple[Tensor, Tensor]:
        """What all ranks hold, from ``own`` numbers and flags of some tensors on this one."""
        found = []
        for ranks, mine in self._shares:
            norms, active = own(mine)
            found.append((norms, active) if ranks is None else ranks.add(norms, active, norm_type))
        norms = add_norms(torch.stack([norms for norms, _ in found]), norm_type)
        active = torch.stack([active for _, active in found]).any(dim=0)
        return (norms, active) if self._last is None else self._last.add(norms, active, norm_type)


def with_other_ranks(
    partition: Partition,
    labels: Sequence[str],
    scope: Scope,
    norm_type: float,
    reduce: Any,
    reduces: Sequence[tuple[str, Any, set[int]]],
) -> Partition:
    """The partition, over other ranks where ``reduce``, or that of a group, says so."""
    if reduce is None and not reduces:
        return partition
    if scope not in ("global", "group") or not isinstance(partition, TensorParts):
        raise ValueError(
            f'reduce needs scope "global" or "group", got {scope!r}, whose parts lie on one rank '
            "each (what is split within a tensor is a DTensor, and is measured as a whole)"
        )
    shares = [(Ranks(f"reduce of {name}", given, norm_type), ids) for name, given, ids in reduces]
    last = None if reduce is None else Ranks("reduce", reduce, norm_type)
    parts = RankParts(partition, shares, last)
    if empty := (parts.numels() == 0).nonzero().flatten().tolist():
        names = listed([labels[i] for i in empty])
        raise ValueError(f"no rank holds a parameter of {names}")
    return parts


def check_alike(sizes: Tensor, label: Callable[[int], str]) -> None:
    """Raise ``RuntimeError`` on all ranks if they measured different sizes, ``[n_parts]``.

    Three collectives, and it waits for them.
    """
    ranks = torch.distributed
    if not (ranks.is_available() and ranks.is_initialized()) or ranks.get_world_size() == 1:
        return
    counts = _of_every_rank(torch.tensor(len(sizes), device=sizes.device))
    if len(set(counts)) > 1:
        raise RuntimeError(_told("number of parts", counts))
    known = sizes.double().where(~sizes.isnan(), -1.0)
    bounds = torch.stack([known, -known])
    ranks.all_reduce(bounds, op=ranks.ReduceOp.MAX)
    differ = bounds[0] != -bounds[1]
    if bool(differ.any()):
        worst = int(differ.nonzero()[0])
        norms = _of_every_rank(sizes[worst])
        raise RuntimeError(_told(f"norm of {label(worst)}", norms))


def _of_every_rank(number: Tensor) -> list[float]:
    each = [torch.empty_like(number) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(each, number)
    return torch.stack(each).tolist()


def _told(what: str, values: Sequence[float]) -> str:
    ranks_of: dict[str, list[str]] = {}
    for rank, value in enumerate(values):
        ranks_of.setdefault(repr(value), []).append(str(rank))
    told = [
        f"{value} on rank{'s' * (len(ranks) > 1)} {listed(ranks)}"
        for value, ranks in ranks_of.items()
    ]
    return (
        f"ranks clip different gradients: the {what} is {'; '.join(told[:8])}: clip after they are "
        "synchronised (under DDP's no_sync they are not), and where ranks hold different "
        "parameters (pipeline stages, experts) pass their process group as reduce"
    )
