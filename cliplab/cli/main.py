"""The command line: ``cliplab run | list | report``; others' files have the rest."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from cliplab.cli.arguments import REFUSED, fail, parse_arguments
from cliplab.cli.commands import calibrate, diff, export, inspect, notebooks, register
from cliplab.cli.diagnosing import diagnose
from cliplab.cli.published import attest, remeasure
from cliplab.cli.racing import new, race
from cliplab.extras import advice

if TYPE_CHECKING:
    from cliplab.lab.batch.spec import RunSpec
    from cliplab.lab.session import Outcome

FAILED, INTERRUPTED = 1, 130
PIPED = 100  # columns of what is printed into a file
STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 (a run failed), 2 (refused) or 128 + a signal."""
    commands = {"run": run, "list": list_, "attest": attest, "report": report, "diagnose": diagnose}
    commands |= {"export": export, "diff": diff, "inspect": inspect, "notebooks": notebooks}
    commands |= {"register": register, "calibrate": calibrate, "remeasure": remeasure}
    commands |= {"new": new, "race": race}
    if isinstance(sys.stdout, TextIOWrapper):  # what it cannot encode is a question mark
        sys.stdout.reconfigure(errors="replace")
    try:
        options = parse_arguments(sys.argv[1:] if argv is None else argv)
        return commands[options.command](options)
    except ValueError as error:
        return fail(REFUSED, error)
    except ModuleNotFoundError as error:
        if not (why := advice(error.name)):
            raise
        print(f"cliplab: error: {why}", file=sys.stderr)  # without the lab
        return REFUSED
    except BrokenPipeError:  # `cliplab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # a full disk, say
        return fail(FAILED, error)
    except KeyboardInterrupt:  # before or after the runs
        return INTERRUPTED


def run(options: argparse.Namespace) -> int:
    """``cliplab run``: carry out what is missing, then judge and report."""
    from cliplab.cli.how import how_of
    from cliplab.lab import session
    from cliplab.lab.batch.progress import Progress
    from cliplab.lab.report.outcome import remember

    bad: list[str] = []
    specs = session.plan(
        options.notebook,
        notebooks=options.notebooks,
        results=options.results,
        preset=_preset(options),
        params=options.params,
        grid=options.grid,
        seeds=options.seeds,
        split_seeds=options.split_seeds,
        wanted=options.filter,
        part=options.shard,
        how=how_of(options),
        force=options.force,
        bad=bad,
    )
    if options.dry_run:
        return _show(specs) or _say_bad(bad)
    if options.prepare_only:
        return _prepare(specs) or _say_bad(bad)
    before = {number: signal.getsignal(number) for number in STOPS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # as under nohup, or in the background of a script
            signal.signal(number, _stop)
    try:
        outcome = session.run(
            specs,
            executor=options.executor,
            jobs=options.jobs,
            notebooks=options.notebooks,
            reports=None if options.shard or options.no_report else options.reports,
            display=Progress(bars=not options.log_output, what=_what(options)),
            stop_on_failure=options.stop_on_failure,
        )
    except _Stopped as stop:
        with suppress(OSError):  # the terminal may be gone
            _say_stopped(specs, options)
        before.clear()  # whoever is impatient now must not cut the end short
        return 128 + stop.number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if options.shard:
        _say_part(options)
    elif options.no_report and outcome.records:
        remember(specs[0].results, outcome.records)  # for `cliplab report`
    status = _say(outcome, bad, len(specs))
    if outcome.left:
        _say_left(outcome.left, len(specs), options)
    return status


def _preset(options: argparse.Namespace) -> str:
    """The preset asked for; a replication is one of its own, with the seeds registered for it."""
    if options.replicate and options.preset != "verdict":
        raise ValueError(f"--replicate: only --preset verdict is registered, not {options.preset}")
    return "replica" if options.replicate else str(options.preset)


def _what(options: argparse.Namespace) -> str:
    """What a batch is of, for whoever named none of the notebooks."""
    if options.notebook:
        return ""
    return f"all notebooks, preset {_preset(options)} (Ctrl-C keeps what is done): "


def _prepare(specs: Sequence[RunSpec]) -> int:
    """``--prepare-only``: the notebooks with their parameters, one path a line."""
    from cliplab.lab.batch.execute import prepare

    status = 0
    for spec in specs:
        try:
            print(prepare(spec))
        except Exception as error:  # of papermill, or the disk: the others go on
            status = fail(FAILED, f"{spec.label}: {error}")
    return status


def _show(specs: Sequence[RunSpec]) -> int:
    """``--dry-run``: the runs, what they are called on disk, and which are done."""
    from cliplab.lab.batch.spec import state
    from cliplab.lab.report.tables import aligned

    rows = [(state(spec), spec.directory.name, spec.label) for spec in specs]
    print(aligned([("state", "key", "run"), *rows]))
    print(f"{sum(row[0] == 'done' for row in rows)} done, {len(rows)} in all", file=sys.stderr)
    return 0


def _say_stopped(specs: Sequence[RunSpec], options: argparse.Namespace) -> None:
    from cliplab.lab.batch.spec import state

    done = f"{sum(state(spec) == 'done' for spec in specs)} of {len(specs)} runs are done"
    print(f"stopped: {done}; {_the_rest(options)}", file=sys.stderr)


def _say_left(left: int, runs: int, options: argparse.Namespace) -> None:
    why = f"stopped at a failure: {left} of {runs} runs did not start"
    print(f"{why}; {_the_rest(options)}", file=sys.stderr)


def _the_rest(options: argparse.Namespace) -> str:
    return f"the same command{' without --force' if options.force else ''} does the rest"


def _say_part(options: argparse.Namespace) -> None:
    index, count = options.shard
    folders = [
        f"--{name} {given}"
        for name in ("notebooks", "results", "reports")
        if (given := getattr(options, name)) not in (Path(), Path(name))
    ]
    after = " ".join(["cliplab report --preset", _preset(options), *folders])
    print(f"part {index} of {count} is over; when all are: `{after}`", file=sys.stderr)


def _say(outcome: Outcome, bad: Sequence[str] = (), runs: int = 0) -> int:
    """Verdicts and report on stdout; on stderr how many runs are done, and what went wrong.

    Returns the exit status.
    """
    from cliplab.lab.report.terminal import failure_table, verdict_table

    if outcome.verdicts:
        width = shutil.get_terminal_size((PIPED, 24)).columns
        print(verdict_table(outcome.verdicts, width, outcome.published))
    if outcome.index:
        print(f"report: {outcome.index}")
    if runs:
        print(f"done: {len(outcome.records)} of {runs} runs", file=sys.stderr)
    if outcome.refusal:
        fail(FAILED, outcome.refusal)
    if outcome.failures:
        print(failure_table(outcome.failures), file=sys.stderr)
    bad_status = _say_bad([*bad, *outcome.bad])
    return FAILED if outcome.refusal or outcome.failures else bad_status


def _say_bad(bad: Sequence[str]) -> int:
    """Name the files that the rest went on without; the exit status."""
    for why in bad:
        fail(FAILED, why)
    return FAILED if bad else 0


def list_(options: argparse.Namespace) -> int:
    """``cliplab list``: notebooks, their questions, presets, parameters and records."""
    from cliplab.lab.notebook.presets import named_notebooks
    from cliplab.lab.report.listing import as_text, corrupt, describe

    entries, bad = [], []
    for path, named in named_notebooks(options.notebook, options.notebooks).items():
        try:
            entries.append(describe(path, options.notebooks, options.results, options.preset))
        except ValueError as error:
            if named:
                raise
            bad.append(str(error))
    if options.preset:
        entries = [entry for entry in entries if options.preset in entry["presets"]]
        if not entries and not bad:
            raise ValueError(f"no notebook has a preset {options.preset!r}")
    brief = not (options.notebook or options.preset)
    if options.json:
        print(json.dumps(entries, indent=1, default=str))
    else:
        print("\n".join(as_text(entry, brief) for entry in entries))
        if brief and entries:
            print("cliplab list NOTEBOOK: its presets, their times, its parameters")
    return _say_bad(bad) or (FAILED if corrupt(entries) else 0)


def report(options: argparse.Namespace) -> int:
    """``cliplab report``: judge and report the last run, or all current records of a preset."""
    from cliplab.lab.report.outcome import check_reportable, last_records, preset_records
    from cliplab.lab.session import tell

    check_reportable(options.notebooks, options.reports, options.results)
    if options.preset:
        records, bad = preset_records(options.preset, options.notebooks, options.results)
    else:
        records, bad = last_records(options.results)
    outcome = tell(records, notebooks=options.notebooks, reports=options.reports)
    status = _say(outcome, bad)
    if options.publish and status == 0:
        from cliplab.lab.report.publish import publish

        publish(records, Path.cwd())
    return status


class _Stopped(BaseException):
    """SIGHUP, SIGINT or SIGTERM."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for other in STOPS:
        signal.signal(other, signal.SIG_IGN)  # once is enough: the runs are being ended
    raise _Stopped(number)
