"""A study: configurations drawn, screened, the best of each way run again, failures counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cliplab.lab.study.results import WayRuns, way_runs
from cliplab.lab.study.size import BLOCK, Size, size_named
from cliplab.lab.study.space import Space

__all__ = ["Study"]

Row = dict[str, Any]
Train = Callable[[list[Row], list[int]], list[Row]]
Job = tuple[int, int]  # a configuration and one of its seeds, counted from 0


class Study:
    """Ways of training compared, each at its own best: ``docs/study.md`` has the rule in steps.

    ``train(configurations, seeds)`` trains ``configurations[i]`` at ``seeds[i]`` and returns one
    row each, in order, with ``val_loss``, ``test_loss`` (finite numbers, lower is better) and
    ``diverged``. A configuration has its ``way`` (one for all in a call) and every coordinate of
    the space, None where the way does not tune it (``ways`` says which it does).

    A run has failed if it diverged, or if its test loss is not below ``chance`` and ``lost``.
    ``handicaps`` names rivals at an earlier checkpoint, ``{"none, early": "none"}``: the same runs
    by their columns ``early_val_loss`` and ``early_test_loss``. ``versus``: the pairs of ways that
    are compared, first and rival. ``at_once``: how many runs a call of ``train`` gets at most.

    ``ValueError``: a way or coordinate that is not there, or a row that lacks one of these columns.
    """

    def __init__(
        self,
        name: str,
        train: Train,
        *,
        space: Space,
        ways: Mapping[str, Sequence[str]],
        versus: Sequence[tuple[str, str]],
        chance: float,
        lost: float = math.inf,
        handicaps: Mapping[str, str] | None = None,
        at_once: int = 64,
    ) -> None:
        self.name, self.train, self.space = name, train, space
        self.ways = {way: list(tuned) for way, tuned in ways.items()}
        self.versus = [tuple(pair) for pair in versus]
        self.chance, self.lost, self.at_once = float(chance), float(lost), at_once
        self.handicaps = dict(handicaps or {})
        for way, tuned in self.ways.items():
            if unknown := [c for c in tuned if c not in space.coordinates]:
                raise ValueError(f"{name}: way {way!r} tunes {unknown}, which the space lacks")
        for way in (*self.handicaps.values(), *(way for pair in self.versus for way in pair)):
            if way not in self.ways:
                raise ValueError(f"{name}: no way {way!r}, only {', '.join(self.ways)}")
        if clash := self.handicaps.keys() & self.ways.keys():
            raise ValueError(f"{name}: {sorted(clash)} are ways and handicaps")
        if not math.isfinite(self.chance):
            raise ValueError(f"{name}: chance = {chance}, expected the loss of a chance predictor")

    def run(self, size: str | Size, first_seed: int) -> list[Row]:
        """Carry the study out; all its rows, those of tuning too.

        A configuration's seeds are its own, ``first_seed + 64 i`` and after, and the ways share
        them; the draws are scrambled by ``first_seed``.
        """
        size = size_named(size)
        rows: list[Row] = []
        draws = self.space.draws(size.configurations, first_seed)

        def carry_out(stage: str, way: str, jobs: Iterable[Job]) -> None:
            left = list(jobs)
            for at in range(0, len(left), self.at_once):
                own = left[at : at + self.at_once]
                configurations = [self._configuration(way, draws[i]) for i, _ in own]
                seeds = [first_seed + BLOCK * i + j for i, j in own]
                found = self.train(configurations, seeds)
                if len(found) != len(own):
                    raise ValueError(f"{self.name}: {len(found)} rows of {len(own)} runs")
                for row, (i, _), seed in zip(found, own, seeds, strict=True):
                    rows.append(self._row(row, stage, way, i, draws[i], seed))

        def runs_of(way: str) -> WayRuns:
            return way_runs(rows, self.name, way, size, of=self.handicaps.get(way))

        screening = [(i, j) for i in range(size.configurations) for j in range(size.screening)]
        for way in self.ways:
            carry_out("screening", way, screening)
        fresh = range(size.screening, size.screening + size.fresh)
        for way in self.ways:
            called = [way, *(h for h, of in self.handicaps.items() if of == way)]
            finalists = dict.fromkeys(i for name in called for i in runs_of(name).ranked())
            carry_out("finalists", way, [(i, j) for i in finalists for j in fresh])
        for way, jobs in self._failure_stage(size, runs_of):
            carry_out("failures", way, jobs)
        return rows

    def _failure_stage(
        self, size: Size, runs_of: Callable[[str], WayRuns]
    ) -> Iterable[tuple[str, list[Job]]]:
        """The runs of each way's picks: the first, then the rest where a failure asks for them."""
        start = size.screening + size.fresh
        first, most = (r // size.picks for r in size.runs)
        compared = list(dict.fromkeys(way for pair in self.versus for way in pair))
        picks = {way: runs_of(way).picks() for way in compared} if first else {}
        for way, chosen in picks.items():
            yield way, [(i, start + j) for i in chosen for j in range(first)]
        failing = {way for way in picks if runs_of(way).failed.any()}
        extended = {way for pair in self.versus if failing & set(pair) for way in pair}
        for way, chosen in picks.items():
            if way in extended:
                yield way, [(i, start + j) for i in chosen for j in range(first, most)]

    def _configuration(self, way: str, draw: Mapping[str, Any]) -> Row:
        return {"way": way} | {c: v if c in self.ways[way] else None for c, v in draw.items()}

    def _row(
        self, row: Row, stage: str, way: str, i: int, draw: Mapping[str, Any], seed: int
    ) -> Row:
        """A run's row, with where it stands in the study and whether it failed.

        ``score`` is the validation loss that choosing goes by, chance where that failed.
        """
        found = {
            **row,
            "arm": f"{self.name}: {way} #{i:02}",
            "seed": seed,
            "study": self.name,
            "way": way,
            "stage": stage,
            "configuration": i,
            **{c: draw[c] if c in self.ways[way] else None for c in self.space.coordinates},
        }
        line = min(self.chance, self.lost)
        for prefix in ("", "early_") if way in self.handicaps.values() else ("",):
            for column in (f"{prefix}val_loss", f"{prefix}test_loss"):
                if not _is_finite(row.get(column)):
                    raise ValueError(
                        f"{found['arm']}, seed {seed}: {column} = {row.get(column)!r}, expected a "
                        "finite number (chance where the run diverged)"
                    )
            gone = bool(row.get("diverged", False))
            lost = gone or not row[f"{prefix}val_loss"] < line
            found[f"{prefix}score"] = self.chance if lost else row[f"{prefix}val_loss"]
            found[f"{prefix}failed"] = gone or not row[f"{prefix}test_loss"] < line
        return found

    def about(self) -> dict[str, Any]:
        """The study as literals: what a registration and a record hold of it."""
        return {
            "space": self.space.about(),
            "ways": self.ways,
            "handicaps": self.handicaps,
            "versus": [list(pair) for pair in self.versus],
            "chance": self.chance,
            "lost": self.lost if math.isfinite(self.lost) else None,
        }


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
