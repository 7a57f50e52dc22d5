"""The command line: ``cliplab run | list | attest | report | diagnose``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from cliplab.cli.arguments import REFUSED, fail, parse_arguments

if TYPE_CHECKING:
    from cliplab.lab.batch.batch import BatchResult
    from cliplab.lab.batch.progress import Progress
    from cliplab.lab.batch.spec import RunSpec

FAILED, INTERRUPTED, TERMINATED = 1, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 (a run failed), 2 (refused), 130 or 143 (stopped)."""
    commands = {"run": run, "list": list_, "attest": attest, "report": report, "diagnose": diagnose}
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        return commands[options.command](options)
    except ValueError as error:
        return fail(REFUSED, error)
    except BrokenPipeError:  # `cliplab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # a full disk, say
        return fail(FAILED, error)
    except KeyboardInterrupt:  # before or after the runs
        return INTERRUPTED


def run(options: argparse.Namespace) -> int:
    """``cliplab run``: carry out what is missing, then judge and report."""
    from cliplab.lab.batch.progress import Progress
    from cliplab.lab.batch.spec import load_finished
    from cliplab.lab.report.outcome import failure_table, remember
    from cliplab.lab.report.tables import duration

    if options.results.exists() and not options.results.is_dir():
        raise ValueError(f"--results {options.results} is not a folder")
    specs = _planned(options)
    if options.dry_run:
        return _show(specs)
    missing = [spec for spec in specs if not load_finished(spec)]
    executor = _executor(missing, options)
    print(f"{len(specs) - len(missing)} done, {len(missing)} to run", file=sys.stderr)
    started = time.perf_counter()
    result = _execute(specs, executor, Progress(len(missing), _lines(options)))
    if isinstance(result, int):
        return result
    seconds = time.perf_counter() - started
    print(f"runs: {duration(seconds)}, set-up and downloads not counted", file=sys.stderr)
    status = FAILED if result.failures else 0
    if options.shard:
        index, count = options.shard
        folders = [
            f"--{name} {given}"
            for name in ("notebooks", "results", "reports")
            if (given := getattr(options, name)) != Path(name)
        ]
        after = " ".join(["cliplab report --preset", options.preset, *folders])
        print(f"part {index} of {count} is over; when all are: `{after}`", file=sys.stderr)
    elif result.records:  # else the last report stays
        remember(options.results, result.records)
        status = _report(result, options) or status
    if result.failures:
        print(failure_table(result.failures), file=sys.stderr)
    return status


def _planned(options: argparse.Namespace) -> list[RunSpec]:
    from cliplab.lab.batch.plan import only, plan, shard
    from cliplab.lab.notebook.presets import find_notebooks

    specs = plan(
        find_notebooks(options.notebook, options.notebooks),
        options.preset,
        options.results,
        params=options.params,
        grid=options.grid,
        seeds=options.seeds,
        split_seeds=options.split_seeds,
        budget_s=60 * options.budget,
        memory_gb=options.memory,
        kernel=options.kernel,
        force=options.force,
    )
    if options.filter:
        specs = only(specs, options.filter)
    return shard(specs, *options.shard) if options.shard else specs


def _show(specs: Sequence[RunSpec]) -> int:
    """``--dry-run``: the runs, what they are called on disk, and which are done."""
    from cliplab.lab.report.tables import aligned

    rows = [(_state(spec), spec.directory.name, spec.label) for spec in specs]
    print(aligned([("state", "key", "run"), *rows]))
    print(f"{sum(row[0] == 'done' for row in rows)} done, {len(rows)} in all", file=sys.stderr)
    return 0


def _state(spec: RunSpec) -> str:
    from cliplab.lab.batch.spec import load_finished

    try:
        return "done" if load_finished(spec) else "to run"
    except ValueError:
        return "damaged"


def _executor(missing: Sequence[RunSpec], options: argparse.Namespace) -> Any:
    """Who carries the runs out, once data and results folder are there; no one for no runs."""
    from cliplab.lab.executors.local import LocalExecutor
    from cliplab.lab.executors.opening import open_executor

    if not missing:
        return LocalExecutor(1)  # starts nothing before the first run
    executor = open_executor(options.executor, options.jobs)
    try:
        fetch_data(missing)
        _check_writable(options.results)
    except BaseException:
        executor.kill()
        raise
    return executor


def _lines(options: argparse.Namespace) -> int:
    return options.jobs if options.executor == "local" else max(options.jobs, 8)


def _check_writable(results: Path) -> None:
    from tempfile import TemporaryFile

    try:
        results.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=results) as file:
            file.write(bytes(2**16))
    except OSError as error:
        raise ValueError(f"cannot write in --results {results}: {error.strerror}") from None


def fetch_data(specs: Sequence[RunSpec]) -> None:
    """Fetch the data sets that the runs' parameters name, before any run starts."""
    from cliplab.lab.data.catalogue import DATA_SETS
    from cliplab.lab.data.fetch import DataUnavailable, fetch

    named = {value for spec in specs for value in spec.params.values() if isinstance(value, str)}
    for name in sorted(named & DATA_SETS.keys()):
        started = time.perf_counter()
        try:
            fetch(DATA_SETS[name])
        except (DataUnavailable, OSError) as error:
            raise ValueError(error) from None
        print(f"data: {name}, {time.perf_counter() - started:.1f} s", file=sys.stderr)


def _execute(specs: Sequence[RunSpec], executor: Any, progress: Progress) -> BatchResult | int:
    """The batch's result, or the exit status if it was stopped."""
    from cliplab.lab.batch.batch import count_done, run_batch

    terminated = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return run_batch(specs, executor, progress)
    except (KeyboardInterrupt, _Terminated) as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        executor.kill()
        progress.close()
        done = f"{count_done(specs)} of {len(specs)} runs are done"
        forced = " without --force" if specs[0].not_before else ""
        print(f"stopped: {done}; the same command{forced} does the rest", file=sys.stderr)
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    finally:
        executor.kill()
        progress.close()
        signal.signal(signal.SIGTERM, terminated)


def _report(result: BatchResult, options: argparse.Namespace) -> int:
    from cliplab.lab.report.outcome import judge_and_report

    try:
        judge_and_report(result.records, options.notebooks, options.reports, result.failures)
    except ValueError as error:
        return fail(FAILED, error)
    return 0


def list_(options: argparse.Namespace) -> int:
    """``cliplab list``: notebooks, their questions, presets, parameters and records."""
    from cliplab.lab.notebook.presets import find_notebooks
    from cliplab.lab.report.listing import as_text, describe

    found = find_notebooks(options.notebook, options.notebooks)
    entries = [describe(path, options.results, options.preset) for path in found]
    if options.preset:
        entries = [entry for entry in entries if options.preset in entry["presets"]]
        if not entries:
            raise ValueError(f"no notebook has a preset {options.preset!r}")
    print(json.dumps(entries, indent=1) if options.json else "\n".join(map(as_text, entries)))
    return 0


def report(options: argparse.Namespace) -> int:
    """``cliplab report``: judge and report the last run, or all current records of a preset."""
    from cliplab.lab.batch.batch import BatchResult
    from cliplab.lab.report.outcome import last_records, preset_records

    if options.preset:
        records = preset_records(options.preset, options.notebooks, options.results)
    else:
        records = last_records(options.results)
    status = _report(BatchResult(records, []), options)
    if options.publish and status == 0:
        from cliplab.lab.report.publish import publish

        publish(records, Path.cwd())
    return status


def attest(options: argparse.Namespace) -> int:
    """``cliplab attest``: carry published records over changes that move no number."""
    from cliplab.lab.attest.attest import Acceptance
    from cliplab.lab.attest.attest import attest as attest_records
    from cliplab.lab.notebook.presets import find_notebooks
    from cliplab.lab.runs.faces import PACKAGE

    found = find_notebooks(options.notebook, options.notebooks)
    published = [path for path in found if (options.records / f"{path.stem}.json").exists()]
    if options.notebook and published != found:
        missing = [path.stem for path in found if path not in published]
        raise ValueError(f"no published record in {options.records}: {', '.join(missing)}")
    outcomes = attest_records(
        published,
        options.records,
        PACKAGE.parent,
        [Acceptance(name, why) for name, why in options.accept],
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    refused = [path.stem for path, outcome in outcomes.items() if isinstance(outcome, ValueError)]
    print(f"{len(outcomes) - len(refused)} current or carried, {len(refused)} refused")
    return FAILED if refused else 0


def diagnose(options: argparse.Namespace) -> int:
    """``cliplab diagnose``: what a saved history shows, and what to change."""
    from cliplab.diagnosis import criteria as diagnosis
    from cliplab.history import History

    try:
        history = History.load(options.history)
    except OSError as error:
        raise ValueError(f"cannot read {options.history}: {error.strerror}") from None
    found = diagnosis.diagnose(history, options.lr)
    if options.json:
        print(json.dumps([finding.as_dict() for finding in found], indent=1))
    else:
        print(f"{len(history)} steps: {found.headline}")
        print("".join(f"\n{finding}\n" for finding in found), end="")
    return 0


class _Terminated(BaseException):
    """SIGTERM."""


def _raise_terminated(signum: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated
