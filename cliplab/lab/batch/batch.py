"""Carrying a batch out: a failure stops nothing, nothing runs twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from cliplab.lab.batch.delivery import deliver
from cliplab.lab.batch.folder import running_cell, settle
from cliplab.lab.batch.lock import Taken
from cliplab.lab.batch.oneline import one_line
from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import Failure, RunError, RunSpec
from cliplab.lab.batch.worker import run_one
from cliplab.lab.runs.record import RunRecord

POLL_S = 0.5
SHOWN = 3  # files that a warning names


@dataclass(frozen=True)
class BatchResult:
    """Records and failures, both in the order of the specs, whatever finished first.

    A run that is done, but whose ``output`` could not be written, is among both. ``left``: what
    did not start.
    """

    records: list[RunRecord]
    failures: list[Failure]
    left: list[RunSpec] = field(default_factory=list)


def run_batch(
    specs: Sequence[RunSpec],
    executor: Executor,
    progress: Silent | None = None,
    stop_on_failure: bool = False,
) -> BatchResult:
    """Carry out these runs; a failed one is tried again as ``How.retries`` says, and stops no other
    but with ``stop_on_failure`` those that have not started.

    One that is done by now is not run again, and one that another batch carries out is waited for.
    """
    return _Batch(executor, progress or Silent(), stop_on_failure).carry_out(specs)


class _Batch:
    def __init__(self, executor: Executor, progress: Silent, stop_on_failure: bool) -> None:
        self.executor, self.progress, self.stop_on_failure = executor, progress, stop_on_failure
        self.flying: dict[Future[RunRecord], RunSpec] = {}
        self.ends: dict[Path, RunRecord | Failure] = {}
        self.undelivered: dict[Path, Failure] = {}
        self.attempts: Counter[Path] = Counter()
        self.stopping = threading.Event()
        self.warned: set[Path] = set()

    def carry_out(self, specs: Sequence[RunSpec]) -> BatchResult:
        elsewhere: list[RunSpec] = []
        for spec in specs:
            self.start(spec)
        while self.flying or elsewhere:
            done = self.landed()
            if not done:  # time to ask again
                while elsewhere:
                    self.start(elsewhere.pop(0))
            for future in done:
                spec = self.flying.pop(future)
                if future.cancelled():
                    continue
                end = self.end(spec, future)
                if isinstance(end, Taken):
                    elsewhere.append(spec)
                    self.progress.elsewhere(spec)
                elif isinstance(end, Failure) and end.retry:
                    self.attempts[spec.directory] += 1
                    self.start(spec)
                    self.progress.retried(spec, end.error)
                else:
                    self.settle(spec, end)
            if self.stopping.is_set():
                elsewhere.clear()
            self.progress.refresh([spec for f, spec in self.flying.items() if f.running()])
        return self.result(specs)

    def start(self, spec: RunSpec) -> None:
        if not self.stopping.is_set():
            future = self.executor.submit(run_one, spec)
            self.flying[future] = spec
            future.add_done_callback(partial(self.stop_if_failed, spec))

    def stop_if_failed(self, spec: RunSpec, future: Future[RunRecord]) -> None:
        """Called where the run ended, before anything else can start there."""
        if self.stop_on_failure and not future.cancelled():
            end = self.end(spec, future)
            if isinstance(end, Failure) and not end.retry:
                self.stopping.set()
                for other in list(self.flying):
                    other.cancel()

    def landed(self) -> set[Future[RunRecord]]:
        """What has ended; empty after a while in which nothing did."""
        if self.flying:
            return wait(self.flying, timeout=POLL_S, return_when=FIRST_COMPLETED).done
        time.sleep(POLL_S)
        return set()

    def end(self, spec: RunSpec, future: Future[RunRecord]) -> RunRecord | Failure | Taken:
        """What an attempt came to."""
        try:
            return future.result()
        except Taken as taken:
            return taken
        except RunError as error:
            why = error
        except Exception as error:  # of the worker, or on the way to it
            why = RunError(one_line(error))
        retries = int(why.died) if spec.how.retries is None else spec.how.retries
        more = self.attempts[spec.directory] < retries and not self.stopping.is_set()
        return Failure(spec, str(why), why.cell, why.retry and more)

    def settle(self, spec: RunSpec, end: RunRecord | Failure) -> None:
        """The last word on a run: its worker may have died just after it was done."""
        if isinstance(end, Failure):
            cell = end.cell or running_cell(spec)
            end = settle(spec, end.error) or replace(end, cell=cell)
        self.ends[spec.directory] = end
        failed = isinstance(end, Failure)
        self.progress.finished(spec, failed=failed)
        if undelivered := deliver(spec, failed):
            self.undelivered[spec.directory] = undelivered
        if isinstance(end, RunRecord):
            self.warn(spec, end)

    def warn(self, spec: RunSpec, record: RunRecord) -> None:
        """Once a notebook: what it read and its key does not know."""
        files = record.provenance.get("undeclared")
        if files and spec.notebook not in self.warned:
            self.warned.add(spec.notebook)
            self.progress.say(
                f"warning: {spec.name} reads {_some(files)}, which metadata.cliplab.reads (or "
                f"ignores) does not name: after a change there, its result still counts as done"
            )

    def result(self, specs: Sequence[RunSpec]) -> BatchResult:
        ends = [self.ends.get(spec.directory) for spec in specs]
        failures: list[Failure] = []
        for spec, end in zip(specs, ends, strict=True):
            undelivered = self.undelivered.get(spec.directory)
            failures += [f for f in (end, undelivered) if isinstance(f, Failure)]
        left = [spec for spec, end in zip(specs, ends, strict=True) if end is None]
        return BatchResult([e for e in ends if isinstance(e, RunRecord)], failures, left)


def _some(files: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    shown = len(files) if len(files) <= SHOWN + 1 else SHOWN
    more = f" and {len(files) - shown} more" if shown < len(files) else ""
    return ", ".join(files[:shown]) + more
