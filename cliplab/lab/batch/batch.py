"""Carrying a batch out: a failure stops nothing, nothing runs twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path

from cliplab.lab.batch.folder import running_cell, settle
from cliplab.lab.batch.lock import Taken
from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import Failure, RunError, RunSpec
from cliplab.lab.batch.worker import run_one
from cliplab.lab.runs.record import RunRecord

POLL_S = 0.5


@dataclass(frozen=True)
class BatchResult:
    """Records and failures, both in the order of the specs, whatever finished first."""

    records: list[RunRecord]
    failures: list[Failure]


def run_batch(
    specs: Sequence[RunSpec], executor: Executor, progress: Silent | None = None
) -> BatchResult:
    """Carry out these runs; a failed one is retried once and stops no other.

    One that is done by now is not run again, and one that another batch carries out is waited for.
    """
    progress = progress or Silent()
    ends: dict[Path, RunRecord | Failure] = {}
    failed_once: set[Path] = set()
    elsewhere: list[RunSpec] = []
    flying = {executor.submit(run_one, spec): spec for spec in specs}
    while flying or elsewhere:
        done = _landed(flying)
        if not done:  # time to ask again
            flying |= {executor.submit(run_one, spec): spec for spec in elsewhere}
            elsewhere.clear()
        for future in done:
            spec = flying.pop(future)
            end = _end(spec, future)
            if isinstance(end, Taken):
                elsewhere.append(spec)
                progress.elsewhere(spec)
            elif isinstance(end, Failure) and end.retry and spec.directory not in failed_once:
                failed_once.add(spec.directory)
                flying[executor.submit(run_one, spec)] = spec
                progress.retried(spec, end.error)
            else:
                ends[spec.directory] = end = _settled(end)
                progress.finished(spec, failed=isinstance(end, Failure))
        progress.refresh([spec for future, spec in flying.items() if future.running()])
    in_order = [ends[spec.directory] for spec in specs]
    return BatchResult(
        [end for end in in_order if isinstance(end, RunRecord)],
        [end for end in in_order if isinstance(end, Failure)],
    )


def _landed(flying: dict[Future[RunRecord], RunSpec]) -> set[Future[RunRecord]]:
    """What has ended; empty after a while in which nothing did."""
    if flying:
        return wait(flying, timeout=POLL_S, return_when=FIRST_COMPLETED).done
    time.sleep(POLL_S)
    return set()


def _end(spec: RunSpec, future: Future[RunRecord]) -> RunRecord | Failure | Taken:
    """What an attempt came to."""
    try:
        return future.result()
    except Taken as taken:
        return taken
    except RunError as error:
        return Failure(spec, str(error), error.cell, error.retry)
    except Exception as error:  # of the worker, or on the way to it
        return Failure(spec, str(error), retry=True)


def _settled(end: RunRecord | Failure) -> RunRecord | Failure:
    """The last word on a run: its worker may have died just after it was done."""
    if isinstance(end, RunRecord):
        return end
    cell = end.cell or running_cell(end.spec)
    return settle(end.spec, end.error) or replace(end, cell=cell)
