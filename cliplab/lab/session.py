"""What ``cliplab run`` does, without a command line: plan, carry out, record, judge, tell.

::

    from cliplab.lab.session import plan, run

    outcome = run(plan(["03"], preset="smoke", grid={"lr": [0.1, 1.0]}), jobs=2)
    outcome.records[0].rows

A script that runs this needs ``if __name__ == "__main__":``, since workers import it.

May use: extras, every room of the lab.
Makes numbers: no.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cliplab.extras import require
from cliplab.lab.batch import plan as planning
from cliplab.lab.batch.batch import BatchResult, run_batch
from cliplab.lab.batch.delivery import deliver, placed
from cliplab.lab.batch.outlets import appended
from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import KERNEL_ENV, Failure, How, RunSpec, find_done
from cliplab.lab.claims import Verdict
from cliplab.lab.claims.ledger import registered
from cliplab.lab.executors.opening import check_executor, open_executor
from cliplab.lab.notebook.presets import named_notebooks
from cliplab.lab.report.beside import Beside, read_beside
from cliplab.lab.report.folder import claim_folder
from cliplab.lab.report.index import write_index
from cliplab.lab.report.outcome import check_reportable, judge_and_report, remember
from cliplab.lab.report.registered import as_registered
from cliplab.lab.report.tables import duration
from cliplab.lab.runs.faces import PACKAGE
from cliplab.lab.runs.files import check_writable
from cliplab.lab.runs.keys import closure
from cliplab.lab.runs.record import RunRecord
from cliplab.lab.runs.register import PRESETS

# What runs, their verdicts and their report import at last.
FOR_RUNS = ("papermill", "ipykernel", "psutil", "tqdm", "scipy", "nbconvert", "latex2mathml")


@dataclass(frozen=True)
class Outcome:
    """Records and failures in the order of the runs, and what they came to.

    ``index`` is the report, None where there is none: nothing was done, a part was run, or the
    records cannot be judged together, which ``refusal`` then says. ``left``: how many runs did not
    start. ``bad``: what is wrong with files that the rest went on without.
    ``published``: verdicts by claim, where these runs decide nothing.
    """

    records: Sequence[RunRecord]
    failures: Sequence[Failure] = ()
    verdicts: Sequence[Verdict] = ()
    published: Mapping[str, Verdict] = field(default_factory=dict)
    index: Path | None = None
    refusal: str = ""
    left: int = 0
    bad: Sequence[str] = ()


def plan(
    names: Sequence[str] = (),
    *,
    notebooks: Path = Path("notebooks"),
    results: Path = Path("results"),
    preset: str = "quick",
    params: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: range | None = None,
    split_seeds: int | None = None,
    wanted: Mapping[str, Sequence[Any]] | None = None,
    part: tuple[int, int] | None = None,
    how: How | None = None,
    force: bool = False,
    bad: list[str] | None = None,
) -> list[RunSpec]:
    """The runs of the notebooks named (name, number, a word of it, path, folder; all if none).

    ``wanted`` keeps those with one of these values of a parameter, ``part`` (i, n) the i-th of n
    equal parts. For the others see :func:`cliplab.lab.batch.plan.plan`. Touches no file;
    ``ValueError`` if anything is unknown or ill-typed. With a list ``bad``, a notebook that cannot
    be read, and is just one of a folder, is named there and left out.
    """
    if results.exists() and not results.is_dir():
        raise ValueError(f"--results {results} is not a folder")
    found = named_notebooks(names, notebooks)
    specs = planning.plan(
        list(found),
        preset,
        results,
        params=params,
        grid=grid,
        seeds=seeds,
        split_seeds=split_seeds,
        folder=notebooks,
        how=how,
        force=force,
        bad=bad,
        named=[path for path, named in found.items() if named],
    )
    if bad and not specs:
        raise ValueError(f"none of {len(found)} notebooks can be run: {bad[0]}")
    if wanted:
        specs = planning.only(specs, wanted)
    specs = placed(specs)
    return planning.shard(specs, *part) if part else specs


def run(
    specs: Sequence[RunSpec],
    *,
    executor: str = "local",
    jobs: int = 1,
    notebooks: Path = Path("notebooks"),
    reports: Path | None = Path("reports"),
    display: Silent | None = None,
    stop_on_failure: bool = False,
) -> Outcome:
    """Carry out what is not done, then judge and report all; ``reports`` None: neither.

    With ``stop_on_failure``, nothing starts after the first run that failed.

    ``ValueError``, before anything starts: no such executor, data that cannot be had, a folder that
    cannot be written or is not cliplab's. A damaged record is set aside and its run made again.
    When stopped, by an exception, it ends the runs in flight.
    """
    require(*FOR_RUNS)
    check_executor(executor)
    display = display or Silent()
    if reports is not None and specs:
        check_reportable(notebooks, reports, specs[0].results)
    done, damaged = find_done(specs)
    for why in damaged:
        display.say(f"{why}: set aside, and run again")
    missing = [spec for spec in specs if spec.directory not in done]
    result = BatchResult([], [])
    if missing:
        _say_unregistered(missing, notebooks, display)
        result = _carry_out(missing, executor, jobs, display, len(done), reports, stop_on_failure)
        write_index(missing[0].results, specs, display.say)
    else:
        display.begin(len(done), 0, lines=0)
    failures = [f for s in specs if s.directory in done if (f := deliver(s, failed=False))]
    failures += result.failures
    done |= {record.directory: record for record in result.records}
    records = [done[spec.directory] for spec in specs if spec.directory in done]
    left = len(result.left)
    if reports is None or not records:  # the last report stays
        return Outcome(records, failures, left=left)
    remember(specs[0].results, records)
    return replace(tell(records, failures, notebooks=notebooks, reports=reports), left=left)


def _say_unregistered(specs: Sequence[RunSpec], notebooks: Path, display: Silent) -> None:
    """Say before a long run that no answer of it will count, not only after it."""
    bound = dict.fromkeys(spec.notebook for spec in specs if spec.preset in PRESETS)
    if not bound:
        return
    ledger = registered(notebooks)
    for path in bound:
        for why in as_registered(path, [], ledger)[1]:
            display.say(f"{path.stem} decides nothing, as it is {why}")


def _carry_out(
    missing: Sequence[RunSpec],
    executor: str,
    jobs: int,
    display: Silent,
    done: int,
    reports: Path | None,
    stop_on_failure: bool,
) -> BatchResult:
    """The runs, once workers, data and folders are there; the workers end in any case."""
    if other := {
        name for name, value in KERNEL_ENV.items() if os.environ.get(name, value) != value
    }:
        display.say(f"not used, as every run has one thread: {', '.join(sorted(other))}")
    pool = open_executor(executor, jobs)
    try:
        fetch_data(missing, display)
        _check_outlets(missing)
        check_writable(missing[0].results, "--results")
        if reports is not None:
            claim_folder(reports)
        display.begin(done, len(missing), lines=jobs if executor == "local" else max(jobs, 8))
        started = time.perf_counter()
        result = run_batch(missing, pool, display, stop_on_failure)
        took = duration(time.perf_counter() - started)
    finally:
        pool.kill()
        display.close()
    display.say(f"runs: {took}, set-up and downloads not counted")
    return result


def fetch_data(specs: Sequence[RunSpec], display: Silent) -> None:
    """Fetch the data sets that runs name in their parameters, where their notebooks load any."""
    named = _texts(specs)
    if not named:
        return
    from cliplab.lab.data.catalogue import DATA_SETS  # imports torch
    from cliplab.lab.data.fetch import DataUnavailable, fetch

    for name in sorted(named & DATA_SETS.keys()):
        started = time.perf_counter()
        try:
            fetch(DATA_SETS[name])
        except (DataUnavailable, OSError) as error:
            raise ValueError(error) from None
        display.say(f"data: {name}, {time.perf_counter() - started:.1f} s")


def _texts(specs: Sequence[RunSpec]) -> set[str]:
    """The parameters that are texts, of the notebooks whose code reaches the lab's data."""
    texts: dict[Path, set[str]] = {}
    for spec in specs:
        found = {value for value in spec.params.values() if isinstance(value, str)}
        texts.setdefault(spec.notebook, set()).update(found)
    data = PACKAGE / "lab" / "data"
    reaching = (
        found
        for notebook, found in texts.items()
        if found and any(data in unit.path.parents for unit in closure(notebook).units)
    )
    return set().union(*reaching)


def _check_outlets(specs: Sequence[RunSpec]) -> None:
    for path in {p for s in specs for p in (s.how.stdout_file, s.how.stderr_file) if p}:
        try:
            appended(path).close()
        except OSError as error:
            raise ValueError(f"cannot write {path}: {error.strerror}") from None


def tell(
    records: Sequence[RunRecord],
    failures: Sequence[Failure] = (),
    *,
    notebooks: Path = Path("notebooks"),
    reports: Path = Path("reports"),
) -> Outcome:
    """Judge the records and write the report."""
    bad = []
    try:
        published = read_beside(notebooks, registered(notebooks), records[0].preset)
    except ValueError as error:
        published, bad = Beside(), [str(error)]
    try:
        verdicts, index, damaged = judge_and_report(
            records, notebooks, reports, failures, published
        )
    except ValueError as error:
        return Outcome(records, failures, refusal=str(error))
    bad += damaged
    return Outcome(records, failures, verdicts, published.verdicts, index, bad=bad)
