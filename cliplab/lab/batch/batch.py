"""Carrying a batch out: what is missing is run, a failure stops nothing, nothing runs twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path

from cliplab.lab.batch.lock import Taken
from cliplab.lab.batch.progress import Progress
from cliplab.lab.batch.spec import RunSpec, load_finished
from cliplab.lab.batch.worker import keep_evidence, run_one
from cliplab.lab.runs.record import RunRecord

POLL_S = 0.5


def _finished(spec: RunSpec) -> RunRecord | None:
    try:
        return load_finished(spec)
    except ValueError:
        return None


def count_done(specs: Sequence[RunSpec]) -> int:
    """How many runs have their record; ``ValueError`` if one is damaged."""
    return sum(load_finished(spec) is not None for spec in specs)


@dataclass(frozen=True)
class Failure:
    """A run that failed twice (or over budget): in which cell, and the last line of its error."""

    spec: RunSpec
    error: str
    cell: str = ""


@dataclass(frozen=True)
class BatchResult:
    """Records and failures, both in the order of the specs, whatever finished first."""

    records: list[RunRecord]
    failures: list[Failure]


def run_batch(
    specs: Sequence[RunSpec], executor: Executor, progress: Progress | None = None
) -> BatchResult:
    """Carry out the runs that are not done; a failed one is retried once and stops no other.

    A run that another batch carries out now is waited for.
    """
    records: dict[Path, RunRecord] = {}
    for spec in specs:
        if record := load_finished(spec):
            records[spec.directory] = record
    todo = [spec for spec in specs if spec.directory not in records]
    failures: dict[Path, Failure] = {}
    failed_once: set[Path] = set()
    elsewhere: list[RunSpec] = []
    futures: dict[Future[RunRecord], RunSpec] = {executor.submit(run_one, s): s for s in todo}
    while futures or elsewhere:
        if futures:
            done, _ = wait(futures, timeout=POLL_S, return_when=FIRST_COMPLETED)
        else:
            done = set()
            time.sleep(POLL_S)
        if not done:  # time to ask again
            futures |= {executor.submit(run_one, spec): spec for spec in elsewhere}
            elsewhere.clear()
        for future in done:
            spec = futures.pop(future)
            try:
                records[spec.directory] = future.result()
            except Taken:
                elsewhere.append(spec)
                if progress:
                    progress.elsewhere(spec)
                continue
            except Exception as error:
                if record := _finished(spec):  # its worker died just after that
                    records[spec.directory] = record
                elif spec.directory not in failed_once and getattr(error, "retry", True):
                    failed_once.add(spec.directory)
                    futures[executor.submit(run_one, spec)] = spec
                    if progress:
                        progress.retried(spec, str(error))
                    continue
                else:
                    cell = keep_evidence(spec, str(error))
                    failure = Failure(spec, str(error), getattr(error, "cell", "") or cell)
                    failures[spec.directory] = failure
            if progress:
                progress.finished(spec, failures.get(spec.directory))
        if progress:
            progress.refresh([spec for future, spec in futures.items() if future.running()])
    return BatchResult(
        [records[spec.directory] for spec in specs if spec.directory in records],
        [failures[spec.directory] for spec in specs if spec.directory in failures],
    )
