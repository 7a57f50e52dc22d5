"""A race: clipping the norm against not clipping, each at its own best, for a user's function."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cliplab.lab.batch.lock import Taken, locked
from cliplab.lab.claims.comparison import measure
from cliplab.lab.claims.judge import judge
from cliplab.lab.claims.ledger import Claim
from cliplab.lab.claims.verdict import Verdict
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.race.function import Target, code_of, load
from cliplab.lab.race.rows import LOSSES, Row
from cliplab.lab.race.runner import Meter, Runner
from cliplab.lab.race.saved import Saved, key_of
from cliplab.lab.race.size import choose, runs_of
from cliplab.lab.report.tables import duration, number
from cliplab.lab.study.results import WayRuns, way_runs
from cliplab.lab.study.size import SIZES, Size
from cliplab.lab.study.space import Log, Space
from cliplab.lab.study.study import Study

__all__ = ["Asked", "Raced", "race"]

NAME = "race"
NONE, NORM, EARLY = "none", "norm", "none, early"
UNTRAINED = 1e-12  # a rate at which nothing is learned
FIRST = 4  # configurations that every size has

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What the command line says; None: not given."""

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
    first_seed: int = 0

    @property
    def space(self) -> Space:
        """What is drawn from; a threshold above all norms never clips, so that end is open."""
        return Space(lr=Log(*self.lr), threshold=Log(*self.threshold, open_high=True))


@dataclass(frozen=True)
class Raced:
    """A race that was run: its rows, and what the rule says of them.

    ``margin``: as given, or the run-to-run standard deviation, which only describes (then the
    verdict has no word). ``early``: whether rows have the scores of an earlier checkpoint.
    """

    asked: Asked
    size_name: str
    run_s: float  # seconds of a run, as it was timed
    chance: float
    rows: list[Row]
    ways: dict[str, WayRuns]
    verdict: Verdict
    margin: float
    one_loss: bool
    early: bool
    notes: tuple[str, ...]

    @property
    def size(self) -> Size:
        """How large it is."""
        return SIZES[self.size_name]

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
        saved = Saved.read(asked.folder / "rows.jsonl", code_of(asked.target))
        if saved.others:
            say(f"{saved.others} saved runs are of other code than today's, and not used")
        pool = None
        if asked.jobs > 1:
            pool = LocalExecutor(asked.jobs)
            stack.callback(pool.kill)
        meter = Meter(say)
        stack.callback(meter.end)
        runner = Runner(asked.target, saved, meter, asked.at_once, pool)
        run_s, notes = _timed(asked, runner)
        name = choose(run_s / asked.jobs, asked.minutes)
        chance = _chance(asked, runner, say)
        least, most = runs_of(SIZES[name])
        runs = f"{least} to {most}" if least < most else f"{most}"
        done = min(len(saved.rows), most)
        took = (
            f"at most {duration((most - done) * run_s / asked.jobs)} to go, {done} runs are saved"
        )
        say(f"{asked.target}: {run_s:.2g} s a run; size {name}, {runs} runs; {took}")
        meter.begin(done, most)
        early = all("early_val_loss" in row for row in saved.rows.values())
        one_loss = any(row["one_loss"] for row in saved.rows.values())
        study = _study(asked, runner, chance, early)
        rows = study.run(name, asked.first_seed)
    return _judged(asked, study, rows, name, run_s, (one_loss, early), notes)


def _timed(asked: Asked, runner: Runner) -> tuple[float, tuple[str, ...]]:
    """Seconds of a run, and a note if its seed does nothing.

    By runs of the study at the lowest of its first rates; the first is for what is loaded once.
    """
    draws = asked.space.draws(FIRST, asked.first_seed)
    lowest = min(range(FIRST), key=lambda i: draws[i]["lr"])
    seed = asked.first_seed + 64 * lowest
    none = {"way": NONE, "lr": draws[lowest]["lr"], "threshold": None}
    norm = {"way": NORM, **draws[lowest]}
    (first,) = runner.rows([none], [seed])
    many = [seed + j for j in range(1, asked.at_once + 1)]
    second, *_ = runner.rows([none] * len(many), many)
    runner.rows([norm], [seed])
    calls = [key_of(none, many[0]), *([key_of(norm, seed)] if asked.at_once == 1 else [])]
    same = not first["diverged"] and all(first[name] == second[name] for name in LOSSES)
    note = "two seeds gave the same loss to the last digit: does the function use its seeds?"
    return max(runner.saved.seconds[one] for one in calls), (note,) if same else ()


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


def _study(asked: Asked, runner: Runner, chance: float, early: bool) -> Study:
    more: dict[str, Any] = {} if asked.lost is None else {"lost": asked.lost}
    return Study(
        NAME,
        runner.scored(chance),
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
    name: str,
    run_s: float,
    told: tuple[bool, bool],
    notes: tuple[str, ...],
) -> Raced:
    one_loss, early = told
    ways = {way: way_runs(rows, NAME, way, SIZES[name]) for way in study.ways}
    spread = measure(ways[NORM], ways[NONE], (NORM, NONE), 1.0).levels["sd"]
    margin = asked.margin or spread or 1.0  # without any spread there is nothing to scale by
    claim = Claim(
        id=NAME,
        kind="estimate" if asked.margin is None else "comparison",
        notebook=str(asked.target),
        question=f"Does clipping the norm help {asked.target}, each way at its own best?",
        study=NAME,
        first=NORM,
        rival=NONE,
        control=EARLY if early else NONE,
        margin=margin,
    )
    verdict = judge(claim, rows, study)
    if not early:  # the rival itself cannot be told apart: "no matter" is never said
        verdict = replace(verdict, control=None)
    notes += _no_effect(rows)
    return Raced(
        asked, name, run_s, study.chance, rows, ways, verdict, margin, one_loss, early, notes
    )


def _no_effect(rows: list[Row]) -> tuple[str, ...]:
    """A note where no threshold ever changed a run: the ways share rates and seeds."""
    pairs: dict[Any, list[float]] = {}
    for row in rows:
        if row["stage"] == "screening" and not row["diverged"]:
            pairs.setdefault((row["configuration"], row["seed"]), []).append(row["test_loss"])
    both = [own for own in pairs.values() if len(own) == 2]
    if both and all(a == b for a, b in both):
        return ("no threshold changed any run: does the function clip at configuration's?",)
    return ()
