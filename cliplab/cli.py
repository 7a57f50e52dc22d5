"""The command line: ``cliplab run | list | report | diagnose``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from cliplab.arguments import fail, parse_arguments

if TYPE_CHECKING:
    from cliplab.lab.batch import BatchResult, Failure, RunSpec
    from cliplab.lab.claims import Verdict
    from cliplab.lab.runs import RunRecord

FAILED, REFUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 (a run failed), 2 (refused), 130 or 143 (stopped)."""
    commands = {"run": run, "list": list_, "report": report, "diagnose": diagnose}
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        return commands[options.command](options)
    except ValueError as error:
        return fail(REFUSED, error)
    except BrokenPipeError:  # `cliplab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def run(options: argparse.Namespace) -> int:
    """``cliplab run``: carry out what is missing, then judge and report."""
    from cliplab.lab.batch import count_done, find_notebooks, plan
    from cliplab.lab.tables import duration

    specs = plan(
        find_notebooks(options.notebook, options.notebooks),
        options.preset,
        options.results,
        params=options.params,
        grid=options.grid,
        seeds=options.seeds,
        split_seeds=options.split_seeds,
        budget_s=60 * options.budget,
    )
    done = count_done(specs)
    print(f"{done} done, {len(specs) - done} to run", file=sys.stderr)
    if done < len(specs):
        fetch_data(specs)
    started = time.perf_counter()
    result = _execute(specs, len(specs) - done, options.jobs)
    if isinstance(result, int):
        return result
    seconds = time.perf_counter() - started
    print(f"runs: {duration(seconds)}, set-up and downloads not counted", file=sys.stderr)
    paths = [str(record.directory / "record.json") for record in result.records]
    status = FAILED
    if paths:  # else the last report stays
        _write_json(options.results / "last_run.json", paths)
        status = judge_and_report(result.records, options, result.failures)
    for failure in result.failures:
        where = failure.spec.directory / "error.txt"
        print(f"failed: {failure.spec.label}: {failure.error} ({where})", file=sys.stderr)
    return FAILED if result.failures else status


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


def _execute(specs: Sequence[RunSpec], missing: int, jobs: int) -> BatchResult | int:
    """The batch's result, or the exit status if it was stopped."""
    from cliplab.lab.batch import LocalExecutor, count_done, run_batch
    from cliplab.lab.progress import Progress

    executor, progress = LocalExecutor(jobs), Progress(missing, jobs)
    terminated = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return run_batch(specs, executor, progress)
    except (KeyboardInterrupt, _Terminated) as stop:
        executor.kill()
        progress.close()
        done = f"{count_done(specs)} of {len(specs)} runs are done"
        print(f"stopped: {done}; the same command does the rest", file=sys.stderr)
        return TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    finally:
        executor.kill()
        progress.close()
        signal.signal(signal.SIGTERM, terminated)


def judge_and_report(
    records: Sequence[RunRecord], options: argparse.Namespace, failures: Sequence[Failure] = ()
) -> int:
    """The verdicts of record, as a table, as reports/claims.json and as the HTML report."""
    from cliplab.lab.report import write_report

    try:
        verdicts = _judge(records, options.notebooks)
    except ValueError as error:
        return fail(FAILED, f"cannot judge: {error}")
    _print_verdicts(verdicts)
    _write_json(options.reports / "claims.json", [verdict.to_dict() for verdict in verdicts])
    print(f"report: {write_report(records, verdicts, options.reports, failures)}")
    return 0


def _judge(records: Sequence[RunRecord], notebooks: Path) -> list[Verdict]:
    """Verdicts of the rows at their preset's parameters: the claims speak of no other setting."""
    from dataclasses import replace

    from cliplab.lab.batch import overrides
    from cliplab.lab.claims import judge_all
    from cliplab.lab.runs import union_rows

    rows, changed = {}, {}
    for name in dict.fromkeys(record.notebook for record in records):
        own = [record for record in records if record.notebook == name]
        differing = [overrides(record, notebooks) for record in own]
        names = sorted({n for differs in differing for n in differs})
        registered = [r for r, differs in zip(own, differing, strict=True) if not differs]
        settings = {str([record.params[n] for n in names]) for record in own}
        if names and not registered:
            changed[name] = f"no verdict ({', '.join(names)} changed)"
        rows[name] = union_rows(registered or (own if len(settings) == 1 else []))
    verdicts = judge_all(rows, records[0].preset)
    return [replace(v, verdict=changed.get(v.notebook, v.verdict)) for v in verdicts]


def _print_verdicts(verdicts: Iterable[Verdict]) -> None:
    from cliplab.lab.tables import effect, number, p_value

    table = [("claim", "verdict", "effect [90 % interval]", "n", "p (Holm)", "statement")]
    for v in verdicts:
        table.append((v.id, v.verdict, effect(v), number(v.n), p_value(v.p_holm), v.statement))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table if len(table) > 1 else []:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def list_(options: argparse.Namespace) -> int:
    """``cliplab list``: notebooks, their questions, presets, parameters and records."""
    from cliplab.lab.batch import find_notebooks

    notebooks = [_describe(path, options) for path in find_notebooks([], options.notebooks)]
    if options.preset:
        notebooks = [notebook for notebook in notebooks if options.preset in notebook["presets"]]
        if not notebooks:
            raise ValueError(f"no notebook has a preset {options.preset!r}")
    if options.json:
        print(json.dumps(notebooks, indent=1))
        return 0
    for notebook in notebooks:
        print(f"{notebook['notebook']}: {notebook['question']}")
        for preset, state in notebook["records"].items():
            counts = [f"{count} {name}" for name, count in state.items() if count]
            print(f"  {preset}: {', '.join(counts) or 'no records'}")
        for p in notebook["parameters"]:
            bound = f" [{p['bound']}]" if p["bound"] else ""
            print(f"    {p['name']}: {p['type']} = {p['default']!r}  {p['help']}{bound}".rstrip())
    return 0


def _describe(notebook: Path, options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from cliplab.lab.batch import read_presets
    from cliplab.lab.keys import code_key
    from cliplab.lab.parameters import load_cells, read_parameters
    from cliplab.lab.runs import RunRecord

    presets = read_presets(notebook)
    parameters = [asdict(parameter) for parameter in read_parameters(notebook).values()]
    current = code_key(notebook)
    states = {}
    for preset in [options.preset] if options.preset in presets else presets:
        state = {"current": 0, "stale": 0, "corrupt": 0}
        for path in (options.results / notebook.stem / preset).glob("*/record.json"):
            try:
                state["current" if RunRecord.load(path).code_key == current else "stale"] += 1
            except ValueError:
                state["corrupt"] += 1
        states[preset] = state
    texts = [cell["source"] for cell in load_cells(notebook) if cell["cell_type"] == "markdown"]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("#")]
    return {
        "notebook": notebook.stem,
        "question": lines[0].lstrip("# ") if lines else "",
        "presets": list(presets),
        "parameters": parameters,
        "records": states,
    }


def report(options: argparse.Namespace) -> int:
    """``cliplab report``: judge and report the last run, or all current records of a preset."""
    records = _preset_records(options) if options.preset else _last_records(options.results)
    status = judge_and_report(records, options)
    if options.publish and status == 0:
        from cliplab.lab.publish import publish

        publish(records, Path.cwd())
    return status


def _last_records(results: Path) -> list[RunRecord]:
    from cliplab.lab.runs import RunRecord

    last = results / "last_run.json"
    try:
        records = [RunRecord.load(Path(path)) for path in json.loads(last.read_text())]
    except OSError as error:
        raise ValueError(f"no records of a last run ({error}): `cliplab run` first") from None
    if not records:
        raise ValueError(f"{last} lists no records: every run of the last batch failed")
    return records


def _preset_records(options: argparse.Namespace) -> list[RunRecord]:
    """Records of the code as it is now; the newest where only the environment differs."""
    from cliplab.lab.batch import find_notebooks
    from cliplab.lab.keys import code_key, digest
    from cliplab.lab.runs import RunRecord

    newest: dict[tuple[str, str], RunRecord] = {}
    for notebook in find_notebooks([], options.notebooks):
        code, folder = code_key(notebook), options.results / notebook.stem / options.preset
        records = [RunRecord.load(path) for path in folder.glob("*/record.json")]
        for record in sorted(records, key=lambda r: str(r.provenance["finished"])):
            if record.code_key == code:
                newest[notebook.stem, digest(record.params)] = record
    if not newest:
        raise ValueError(f"no current records of preset {options.preset!r} in {options.results}")
    return list(newest.values())


def diagnose(options: argparse.Namespace) -> int:
    """``cliplab diagnose``: what a saved history shows, and what to change."""
    from cliplab import diagnosis
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


def _write_json(path: Path, value: object) -> None:
    from cliplab.lab.runs import write_atomic

    write_atomic(path, json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
