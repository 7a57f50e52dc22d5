"""Arms x seeds trained as one batched program, each member clipped by its own norm and policy.

Arms of one seed are paired: they start from the same weights and, where data are per seed, see the
same data.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cliplab import Clipper, ClipReport, Switch, Threshold, as_policy
from cliplab.lab.training.telemetry import finite_or_none, member_columns
from cliplab.thresholds import Mode


class Ensemble(nn.Module):
    """``len(arms) x len(seeds)`` copies of a model, stacked on a leading axis of members.

    ``build(seed)`` makes one model; ``arms`` maps a label to its threshold: a number, a policy,
    or None for no clipping. Members go arm by arm, within an arm seed by seed. One whose loss or
    gradient is not finite is frozen at its last finite weights and recorded; no other notices.

    Data are given one batch a seed, which all its arms see, or one a member (``data="member"``:
    what agents meet is their own doing).

    ``vectorize`` runs all members as one ``torch.vmap``; False takes them one after the other,
    for modules that vmap cannot take and whose own kernel is faster anyway (``nn.LSTM``).
    Models are built on the CPU, so that weights are the same everywhere, and live on ``device``.

    ``mode``: what every member's gradient of size n meets, with its own limit c, as in ``Clipper``:
    "rescale" (``min(1, c / n)``), "soft" (``c / (c + n)``) or "normalise" (``c / n``).

    Args:
        build: makes the model of a seed.
        arms: thresholds by label.
        seeds: of the models of every arm.
        data: "seed" or "member": what a batch is given for.
        vectorize: whether one program runs all members.
        device: where they live.
        mode: what a gradient above its limit meets.
    """

    def __init__(
        self,
        build: Callable[[int], nn.Module],
        arms: Mapping[str, float | Threshold | None],
        seeds: Sequence[int],
        *,
        data: Literal["seed", "member"] = "seed",
        vectorize: bool = True,
        device: torch.device | str = "cpu",
        mode: Mode = "rescale",
    ) -> None:
        super().__init__()
        if not arms or not seeds:
            raise ValueError(f"an ensemble needs arms and seeds, got {len(arms)} and {len(seeds)}")
        if data not in ("seed", "member"):
            raise ValueError(f"data must be seed or member, got {data!r}")
        self.build, self.arms, self.seeds = build, dict(arms), list(seeds)
        self.data, self.vectorize = data, vectorize
        models = [build(seed) for seed in self.seeds]
        self._template = [copy.deepcopy(models[0]).to("meta")]  # in a list: not a submodule
        self._names = [name for name, _ in models[0].named_parameters()]
        for name in self._names:
            seeds_stacked = torch.stack([m.get_parameter(name).detach() for m in models])
            stacked = seeds_stacked.repeat(len(self.arms), *[1] * (seeds_stacked.ndim - 1))
            stacked = stacked.to(device)
            self.register_parameter(name.replace(".", "/"), nn.Parameter(stacked))
        members = len(self.arms) * len(self.seeds)
        self.alive = torch.ones(members, dtype=torch.bool, device=device)
        self.died_at = torch.full((members,), -1, device=device)
        self.steps = 0
        self._report: ClipReport | None = None  # of a clip whose step is still to be taken
        self.clipper = Clipper(
            list(self.parameters()), self._policies(), scope="member", mode=mode, nonfinite="zero"
        )

    def __len__(self) -> int:
        return len(self.arms) * len(self.seeds)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The stacked parameters by their names in the model, ``[members, ...]`` each."""
        return dict(zip(self._names, self.parameters(), strict=True))

    def network(self, member: int) -> nn.Module:
        """One member as a model of its own, a copy as ``build`` makes it (on the CPU).

        Args:
            member: its place.
        """
        model = self.build(self.seeds[member % len(self.seeds)])
        with torch.no_grad():
            for name, stacked in self.weights.items():
                model.get_parameter(name).copy_(stacked[member])
        return model

    def forward(self, x: Tensor) -> Tensor:
        """Give every member its data: ``[seeds, ...]`` or ``[members, ...] -> [members, ...]``.

        Args:
            x: data.
        """
        model, index = self._template[0], self._data_index
        if self.vectorize:
            run = torch.vmap(lambda weights, one: functional_call(model, weights, (one,)))
            return run(self.weights, x[index])
        columns = {name: weights.unbind() for name, weights in self.weights.items()}
        outputs = [
            functional_call(model, {name: column[m] for name, column in columns.items()}, (x[s],))
            for m, s in enumerate(index.tolist())
        ]
        return torch.stack(outputs)

    @property
    def _data_index(self) -> Tensor:
        """Position of every member's data in what is given: ``[members]``."""
        if self.data == "member":
            return torch.arange(len(self))
        return torch.arange(len(self.seeds)).repeat(len(self.arms))

    def for_members(self, given: Tensor) -> Tensor:
        """Give every member its own of the data ``[seeds or members, ...]``: ``[members, ...]``.

        Args:
            given: data.
        """
        return given[self._data_index]

    def clip(self) -> ClipReport:
        """Clip each member by its own norm and its own arm's policy; ``step`` comes next."""
        self._report = self.clipper.clip()
        return self._report

    def step(
        self, optimizer: torch.optim.Optimizer, losses: Tensor, rates: Tensor | None = None
    ) -> None:
        """Take the optimizer's step; members that are or become non-finite stay where they were.

        ``rates [members]``: the share of the step that each member takes, which is its learning
        rate if the optimizer's is 1, whatever the optimizer. RuntimeError before a ``clip``.

        Args:
            optimizer: of ``weights``.
            losses: ``[members]``.
            rates: ``[members]``, or None: whole steps.
        """
        if self._report is None:
            raise RuntimeError("step() before clip(): no gradient has been clipped since the last")
        finite = losses.detach().isfinite() & self._report.norm_before.isfinite()
        self._report = None
        self.died_at[self.alive & ~finite] = self.steps
        self.alive &= finite
        self.steps += 1
        dead = (~self.alive).nonzero()[:, 0]
        parameters = list(self.parameters())
        kept = [p.detach()[dead] for p in parameters] if len(dead) else []
        before = [] if rates is None else [p.detach().clone() for p in parameters]
        optimizer.step()
        with torch.no_grad():
            if rates is not None:
                for p, old in zip(parameters, before, strict=True):
                    p.copy_(old + rates.view(-1, *[1] * (p.ndim - 1)) * (p - old))
            for p, rows in zip(parameters, kept, strict=False):
                p[dead] = rows

    def rows(self, **columns: Any) -> list[dict[str, Any]]:
        """One tidy row per member with its clipping telemetry; ``columns`` hold lists or scalars.

        A column given as a tensor or list has one entry per member; anything else is repeated.
        ``telemetry.py`` says what the clipping columns mean.
        """
        telemetry = {
            "diverged": ~self.alive,
            "died_at": [None if d < 0 else d for d in self.died_at.tolist()],
            **member_columns(self.clipper.history, self.died_at),
        }
        arms = [label for label in self.arms for _ in self.seeds]
        seeds = self.seeds * len(self.arms)
        thresholds = [_number(self.arms[label]) for label in arms]
        table = {"arm": arms, "seed": seeds, "threshold": thresholds, **columns, **telemetry}
        return [{key: _entry(value, m) for key, value in table.items()} for m in range(len(self))]

    def _policies(self) -> Switch:
        cases = []
        for position, threshold in enumerate(self.arms.values()):
            mask = torch.arange(len(self)) // len(self.seeds) == position
            limit = math.inf if threshold is None else threshold
            cases.append((mask, as_policy(limit)))
        return Switch(cases)


def _number(threshold: float | Threshold | None) -> float | None:
    return None if threshold is None or isinstance(threshold, Threshold) else float(threshold)


def _entry(value: Any, member: int) -> Any:
    if isinstance(value, Tensor):
        return finite_or_none(value[member])
    return value[member] if isinstance(value, list) else value
