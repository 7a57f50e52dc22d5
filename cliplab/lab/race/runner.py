"""Carrying out what is not saved yet: in this process, or in several."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor, Future, as_completed
from typing import Any

from cliplab.lab.batch.spec import RunError
from cliplab.lab.race.function import Called, Target, call
from cliplab.lab.race.rows import EARLY, Row, named, scored
from cliplab.lab.race.saved import Saved, key_of
from cliplab.lab.report.tables import duration

__all__ = ["Meter", "RaisedError", "Runner"]

Say = Callable[[str], None]
Configurations = Sequence[Mapping[str, Any]]
EVERY = 10.0  # seconds between two lines where there is no terminal


class RaisedError(Exception):
    """The user's function raised an error; ``trace`` is its traceback."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


class Meter:
    """How far it is, on stderr: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, say: Say) -> None:
        self.say, self._most = say, 0
        self._bar: Any = None
        self._done, self._began, self._told = 0, 0.0, 0.0

    def begin(self, done: int, most: int) -> None:
        """So many runs are saved, and so many there will be at most."""
        self._done, self._most, self._from = done, most, done
        self._began = self._told = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=most, initial=done, unit="run", file=sys.stderr)

    def ran(self, runs: int) -> None:
        """So many more are done."""
        self._done += runs
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(runs)
        elif self._most and now - self._told >= EVERY:
            self._told = now
            each = (now - self._began) / (self._done - self._from)
            left = duration(each * max(self._most - self._done, 0))
            self.say(f"{self._done} of at most {self._most} runs, {left} left at most")

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()


class Runner:
    """A study's ``train`` that asks the function only for runs that are not saved.

    ``pool``: where its calls go, None: they are made here, one after the other. ``at_once``: how
    many runs a call gets at most.
    """

    def __init__(
        self, target: Target, saved: Saved, meter: Meter, at_once: int, pool: Executor | None
    ) -> None:
        self.target, self.saved, self.meter = target, saved, meter
        self.at_once, self.pool = at_once, pool
        self._left_out: set[str] = set()
        self.early: bool | None = None  # whether runs have early losses, if any lived
        for (way, lr, threshold, seed), row in saved.rows.items():
            self._check_early(row, {"way": way, "lr": lr, "threshold": threshold}, seed)

    def scored(self, chance: float, early: bool) -> Callable[[list[Row], list[int]], list[Row]]:
        """The ``train`` of a study whose runs score chance where they diverged."""
        return lambda configurations, seeds: [
            scored(row, chance, early) for row in self.rows(configurations, seeds)
        ]

    def rows(self, configurations: Configurations, seeds: Sequence[int]) -> list[Row]:
        """The checked row of each run, in order, those that were missing saved as they came.

        ``RaisedError``: the function raised an error; ``ValueError``: it returned no such rows.
        """
        runs = list(zip(configurations, seeds, strict=True))
        missing = [run for run in runs if key_of(*run) not in self.saved.rows]
        parts = [missing[i : i + self.at_once] for i in range(0, len(missing), self.at_once)]
        for part, called in self._called(parts):
            own, own_seeds = [c for c, _ in part], [seed for _, seed in part]
            if called.error:
                run = named(*part[0]) + (f", and {len(part) - 1} more" if len(part) > 1 else "")
                raise RaisedError(f"{self.target} raised {called.error} at ({run})", called.trace)
            if called.refused:
                raise ValueError(f"{self.target} {called.refused}")
            for row, configuration, seed in zip(called.rows, own, own_seeds, strict=True):
                self._check_early(row, configuration, seed)
            self._tell_left_out(called.left_out)
            for row, configuration, seed in zip(called.rows, own, own_seeds, strict=True):
                self.saved.add(configuration, seed, row, called.seconds / len(part))
            self.meter.ran(len(part))
        return [self.saved.rows[key_of(*run)] for run in runs]

    def _check_early(self, row: Row, configuration: Mapping[str, Any], seed: int) -> None:
        """``ValueError``: a run that lived has early losses and the first had none, or so."""
        if row["diverged"]:
            return
        has = EARLY[0] in row
        if self.early is None:
            self.early = has
            if not has:
                self.meter.say(
                    f"{self.target}: no {' and '.join(EARLY)} in its rows, so there is no control: "
                    "“no matter” cannot be said, and to add them later takes all runs again"
                )
        if has != self.early:
            here, there = ("has", "has none") if has else ("has no", "has it")
            raise ValueError(
                f"{self.target} ({named(configuration, seed)}): the row {here} {EARLY[0]}, the "
                f"first one {there}: expected it in all rows of runs that lived, or in none"
            )

    def _tell_left_out(self, names: Set[str]) -> None:
        """Say once which columns no table can hold."""
        if new := sorted(names - self._left_out):
            self._left_out |= names
            what = "a table holds numbers, text, True and False"
            self.meter.say(f"not kept of the rows: {', '.join(new)} ({what})")

    def _called(
        self, parts: Sequence[list[tuple[Any, int]]]
    ) -> Iterator[tuple[list[tuple[Any, int]], Called]]:
        given = [([dict(c) for c, _ in part], [seed for _, seed in part]) for part in parts]
        if self.pool is None:
            for part, arguments in zip(parts, given, strict=True):
                yield part, call(self.target, *arguments)
            return
        futures: dict[Future[Called], list[tuple[Any, int]]] = {
            self.pool.submit(call, self.target, *arguments): part
            for part, arguments in zip(parts, given, strict=True)
        }
        for future in as_completed(futures):
            part = futures[future]
            try:
                yield part, future.result()
            except RunError as error:  # killed, out of memory
                raise RaisedError(f"{self.target} at ({named(*part[0])}): {error}", "") from None
