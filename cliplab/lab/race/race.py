"""A race: clipping the norm against not clipping, each at its own best, for a user's function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cliplab.lab.batch.lock import NoLocks, Taken, locked
from cliplab.lab.claims.comparison import measure
from cliplab.lab.claims.judge import judge
from cliplab.lab.claims.ledger import Claim
from cliplab.lab.claims.verdict import Verdict
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.race.decided import Registered, check_folder, find, judged_before, register
from cliplab.lab.race.function import Target, code_of, load
from cliplab.lab.race.rows import Row
from cliplab.lab.race.runner import Meter, Runner
from cliplab.lab.race.saved import Saved, key_of
from cliplab.lab.race.size import choose, reach, runs_of
from cliplab.lab.report.tables import duration, number
from cliplab.lab.study.results import WayRuns, way_runs
from cliplab.lab.study.size import BLOCK, SIZES, Size
from cliplab.lab.study.space import Log, Space
from cliplab.lab.study.study import Study

__all__ = ["Asked", "Raced", "race"]

NAME = "race"
NONE, NORM, EARLY = "none", "norm", "none, early"
UNTRAINED = 1e-12  # a rate at which nothing is learned
ROUNDING = 1e-12  # of chance: a spread below it is none
FIRST = 4  # configurations that every size has

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What the command line says; None: not given. ``first_seed`` comes of registering it."""

    target: Target
    folder: Path  # for rows and page
    minutes: float = 30.0
    lr: tuple[float, float] = (1e-4, 1.0)
    threshold: tuple[float, float] = (0.01, 100.0)
    margin: float | None = None
    chance: float | None = None
    lost: float | None = None
    jobs: int = 1
    at_once: int = 1
    repeat: int = 0
    first_seed: int = 0

    @property
    def decides(self) -> dict[str, Any]:
        """What the answer depends on beside the runs: it is fixed before they are made."""
        one = {name: getattr(self, name) for name in ("margin", "chance", "lost", "repeat")}
        return one | {"lr": list(self.lr), "threshold": list(self.threshold)}

    @property
    def space(self) -> Space:
        """What is drawn from; a threshold above all norms never clips, so that end is open."""
        return Space(lr=Log(*self.lr), threshold=Log(*self.threshold, open_high=True))


@dataclass(frozen=True)
class Raced:
    """A race that was run: its rows, and what the rule says of them.

    ``margin``: as given, or the run-to-run standard deviation (``spread``), which only describes;
    None without either. ``others``: what else was asked in the folder. ``judged``: the other sizes
    at which this was judged before. ``early``: whether rows have the scores of an earlier
    checkpoint.
    """

    asked: Asked
    size_name: str
    run_s: float  # seconds of a run, as it was timed
    chance: float
    rows: list[Row]
    ways: dict[str, WayRuns]
    verdict: Verdict
    margin: float | None
    spread: float | None
    one_loss: bool
    early: bool
    notes: tuple[str, ...]
    others: tuple[Mapping[str, Any], ...] = ()
    judged: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """How large it is."""
        return SIZES[self.size_name]

    @property
    def has_word(self) -> bool:
        """Whether it is judged: only with a margin."""
        return self.verdict.kind == "comparison"

    @property
    def learned(self) -> bool:
        """Whether any run succeeded."""
        return not all(row["failed"] for row in self.rows)

    @property
    def beaten_from(self) -> float:
        """The loss from which on a run has failed."""
        return self.chance if self.asked.lost is None else min(self.chance, self.asked.lost)

    @property
    def losses(self) -> Sequence[float | None]:
        """Of the clipped way and of the other; None where one hardly ever succeeds."""
        return (self.verdict.levels or {})["loss"]

    @property
    def minutes_a_run(self) -> float:
        """With all the jobs at work."""
        return self.run_s / 60 / self.asked.jobs


def race(asked: Asked, say: Say) -> Raced:
    """Time a run, choose the size, carry out what is not saved yet, judge.

    ``ValueError``: no such function, no such rows, or no size fits; ``RaisedError``: it raised.
    """
    load(asked.target)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(asked.folder))
        except Taken:
            raise ValueError(f"another race is running in {asked.folder}") from None
        except NoLocks as error:
            raise ValueError(f"{error}: give another one by --results") from None
        check_folder(asked.folder, asked.target)
        saved = Saved.read(asked.folder / "rows.jsonl", code_of(asked.target))
        if saved.others:
            say(f"{len(saved.others)} saved runs are of other code than today's, and not used")
        asked, others = _found(asked, saved, say)
        pool = None
        if asked.jobs > 1:
            pool = LocalExecutor(asked.jobs)
            stack.callback(pool.kill)
        meter = Meter(say)
        stack.callback(meter.end)
        runner = Runner(asked.target, saved, meter, asked.at_once, pool)
        run_s = _timed(asked, runner)
        name = choose(run_s / asked.jobs, asked.minutes, bool(runner.early))
        chance = _chance(asked, runner, say)
        register(asked.folder, asked.decides, asked.first_seed)  # nothing was refused
        saved.keep()
        least, most = runs_of(SIZES[name], bool(runner.early))
        runs = f"{least} to {most}" if least < most else f"{most}"
        done = min(len(saved.rows), most)
        left = duration((most - done) * run_s / asked.jobs)
        told = f"at most {left} to go, {done} runs are saved"
        say(f"{asked.target}: {run_s:.2g} s a run; size {name}, {runs} runs; {told}")
        if more := reach(name, run_s / asked.jobs, bool(runner.early)):
            say(more)
        meter.begin(done, most)
        one_loss = any(row["one_loss"] for row in saved.rows.values())
        study = _study(asked, runner, chance)
        rows = study.run(name, asked.first_seed)
        if runner.early and not study.handicaps:  # the first run that lived came late
            study = _study(asked, runner, chance)
            rows = study.run(name, asked.first_seed)
        raced = _judged(asked, study, rows, name, run_s, one_loss)
        word = raced.has_word and raced.size.decides
        judged = judged_before(asked.folder, asked.decides, name) if word else []
    return replace(raced, others=tuple(one.given for one in others), judged=tuple(judged))


def _found(asked: Asked, saved: Saved, say: Say) -> tuple[Asked, list[Registered]]:
    """What is asked with the seeds that it has or will have, and what else was asked.

    The saved runs of other questions are left out.
    """
    own, others = find(asked.folder, asked.decides, saved.seeds)
    if saved.seeds and not any(map(own.has, saved.seeds)):
        say(f"asked anew: with draws and seeds of its own, from {own.first_seed} on")
    saved.rows = {run: row for run, row in saved.rows.items() if own.has(run[-1])}
    return replace(asked, first_seed=own.first_seed), others


def _timed(asked: Asked, runner: Runner) -> float:
    """Seconds of a run, by a call of each job, all at once, at the lowest of the first rates.

    Another such round comes before, for what is loaded once. Both are runs of the study, as far as
    it has so many.
    """
    draws = asked.space.draws(FIRST, asked.first_seed)
    lowest = min(range(FIRST), key=lambda i: draws[i]["lr"])
    seed = asked.first_seed + BLOCK * lowest
    seeds = [seed + j for j in range(asked.jobs * asked.at_once)]
    none = {"way": NONE, "lr": draws[lowest]["lr"], "threshold": None}
    norm = {"way": NORM, **draws[lowest]}
    for configuration in (none, norm):
        runner.rows([configuration] * len(seeds), seeds)
    return max(runner.saved.seconds[key_of(norm, one)] for one in seeds)


def _chance(asked: Asked, runner: Runner, say: Say) -> float:
    """As given; else the loss of a run that learned nothing."""
    if asked.chance is not None:
        return asked.chance
    (row,) = runner.rows([{"way": NONE, "lr": UNTRAINED, "threshold": None}], [asked.first_seed])
    if row["diverged"]:
        raise ValueError(
            f"{asked.target} diverged at a learning rate of {UNTRAINED:g}, which should show what "
            "an untrained model scores: give --chance"
        )
    chance = float(row["test_loss"])
    say(f"chance, by a run that learned nothing (rate {UNTRAINED:g}): {number(chance)}")
    return chance


def _study(asked: Asked, runner: Runner, chance: float) -> Study:
    early = bool(runner.early)
    more: dict[str, Any] = {} if asked.lost is None else {"lost": asked.lost}
    return Study(
        NAME,
        runner.scored(chance, early),
        space=asked.space,
        ways={NONE: ["lr"], NORM: ["lr", "threshold"]},
        versus=[(NORM, NONE)],
        handicaps={EARLY: NONE} if early else {},
        chance=chance,
        at_once=10**6,  # the runner has its own
        **more,
    )


def _judged(
    asked: Asked,
    study: Study,
    rows: list[Row],
    size_name: str,
    run_s: float,
    one_loss: bool,
) -> Raced:
    """What the rule says."""
    early = bool(study.handicaps)
    ways = {way: way_runs(rows, NAME, way, SIZES[size_name]) for way in study.ways}
    spread = measure(ways[NORM], ways[NONE], (NORM, NONE), 1.0).levels["sd"]
    spread = spread if spread and spread > ROUNDING * abs(study.chance) else None
    margin = asked.margin or spread
    claim = Claim(
        id=NAME,
        kind="estimate" if asked.margin is None else "comparison",
        notebook=str(asked.target),
        question=f"Does clipping the norm help {asked.target}, each way at its own best?",
        study=NAME,
        first=NORM,
        rival=NONE,
        control=EARLY if early else NONE,
        margin=margin or 1.0,
    )
    verdict = judge(claim, rows, study)
    if margin is None:  # nothing to scale by
        verdict = replace(verdict, usable=None, margin=None)
    if not early:  # the rival itself cannot be told apart: "no matter" is never said
        verdict = replace(verdict, control=None)
    return Raced(
        asked=asked,
        size_name=size_name,
        run_s=run_s,
        chance=study.chance,
        rows=rows,
        ways=ways,
        verdict=verdict,
        margin=margin,
        spread=spread,
        one_loss=one_loss,
        early=early,
        notes=tuple(_without_effect(rows)),
    )


def _without_effect(rows: list[Row]) -> Iterator[str]:
    """Notes where all runs ended the same to the last digit whatever their seed, or threshold.

    The ways share rates and seeds.
    """
    good = [row for row in rows if not row["failed"]]
    for same, note in (
        (("way", "configuration"), "no seed changed any run: does the function use its seeds?"),
        (("configuration", "seed"), "no threshold changed any run: does the function clip?"),
    ):
        groups: dict[Any, list[float]] = {}
        for row in good:
            groups.setdefault(tuple(row[name] for name in same), []).append(row["test_loss"])
        several = [own for own in groups.values() if len(own) > 1]
        if several and all(len(set(own)) == 1 for own in several):
            yield note
