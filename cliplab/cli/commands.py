"""The commands on what was recorded, on registrations, and on what there is to run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cliplab.cli.arguments import REFUSED, fail

if TYPE_CHECKING:
    from cliplab.lab.runs.record import RunRecord

FAILED, DIFFERENT = 1, 1


def export(options: argparse.Namespace) -> int:
    """``cliplab export``: all that was recorded as one table."""
    from cliplab.lab.report.export import as_csv, table_of, write_export
    from cliplab.lab.report.results import read_records

    records, damaged = read_records(
        options.results, options.notebook, options.preset, notebooks=options.notebooks
    )
    table = table_of(records)
    if options.output:
        write_export(table, options.output, force=options.force)
        sizes = (len(table.rows), "row"), (len(table.columns), "column"), (len(records), "run")
        rows, columns, runs = (f"{k} {noun}{'s' * (k != 1)}" for k, noun in sizes)
        print(f"{options.output}: {rows}, {columns}, of {runs}")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(as_csv(table))
        sys.stdout.buffer.flush()
    return _tell(damaged, FAILED)


def diff(options: argparse.Namespace) -> int:
    """``cliplab diff``: which numbers differ; the exit status is 0, 1 (some do) or 2 (trouble)."""
    from cliplab.lab.report.diff import MOST, as_data, as_text, compare
    from cliplab.lab.report.sides import open_side

    try:
        old, new = (
            open_side(
                name,
                options.notebook,
                options.preset,
                records=options.records,
                notebooks=options.notebooks,
            )
            for name in (options.a, options.b)
        )
    except OSError as error:
        raise ValueError(f"cannot compare: {error}") from None
    found, names = compare(old, new), (old.name, new.name)
    if options.json:
        print(json.dumps(as_data(found, names), indent=1, allow_nan=False))
    else:
        print(as_text(found, names, None if options.all else MOST))
    status = 0 if all(one.same for one in found) else DIFFERENT
    return _tell([*old.damaged, *new.damaged], REFUSED) or status


def inspect(options: argparse.Namespace) -> int:
    """``cliplab inspect``: a notebook's parameters."""
    from dataclasses import asdict

    from cliplab.lab.notebook.inspect import inspect_text
    from cliplab.lab.notebook.parameters import read_signature
    from cliplab.lab.notebook.presets import find_notebooks

    path, *more = find_notebooks([options.notebook], options.notebooks)
    if more:
        raise ValueError(f"{options.notebook} has {1 + len(more)} notebooks, expected one")
    if options.json:
        found = read_signature(path).parameters.values()
        print(json.dumps([asdict(parameter) for parameter in found], indent=1))
    else:
        print(inspect_text(path))
    return 0


def notebooks(options: argparse.Namespace) -> int:
    """``cliplab notebooks``: the collection, copied to where one works."""
    from cliplab.lab.notebook.collection import copy_collection

    try:
        made = copy_collection(options.folder)
    except OSError as error:
        raise ValueError(f"cannot write in {options.folder}: {error.strerror}") from None
    print(f"{options.folder}: {len(made)} files copied" if made else f"{options.folder}: all there")
    print(f"next: cliplab run 01 --notebooks {options.folder} --preset smoke")
    return 0


def register(options: argparse.Namespace) -> int:
    """``cliplab register``: fix comparisons, their seeds and their chances before they are run."""
    from cliplab.lab.claims.registering import register
    from cliplab.lab.notebook.presets import find_notebooks

    for path in find_notebooks(options.notebook, options.notebooks):
        pilots, bad = _pilots(path, options)
        written = register(path, pilots)
        content = json.loads(written.read_text(encoding="utf-8"))
        print(f"{written}: first seed {content['first_seed']}; commit it before the verdict run")
        for name, chances in content["power"].items():
            print(
                f"  {name}: " + ", ".join(f"{what} {value:.2f}" for what, value in chances.items())
            )
        _tell(bad, FAILED)
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """``cliplab calibrate``: the verdict rule on surfaces whose truth is known."""
    from cliplab.lab.claims.calibration import table
    from cliplab.lab.claims.registering import PILOT, planned
    from cliplab.lab.notebook.presets import find_notebooks

    if not options.notebook:
        print(table(options.studies))
        return 0
    for path in find_notebooks(options.notebook, options.notebooks):
        pilots, _ = _pilots(path, options)
        if not pilots:
            why = f"no pilot in {options.results}: `cliplab run {path.stem} --preset {PILOT}`"
            raise ValueError(f"{path.stem}: {why}")
        for name, found in planned(path, pilots[-1], options.studies).items():
            print(f"{name}: {found}")
    return 0


def _pilots(path: Path, options: argparse.Namespace) -> tuple[list[RunRecord], list[str]]:
    """The pilots of a notebook, the newest last, and what is wrong with others."""
    from cliplab.lab.claims.registering import PILOT
    from cliplab.lab.notebook.presets import notebook_name
    from cliplab.lab.report.results import load_all

    folder = options.results / notebook_name(path, options.notebooks) / PILOT
    pilots, bad = load_all(sorted(folder.glob("*/record.json")))
    return sorted(pilots, key=lambda pilot: str(pilot.provenance.get("finished", ""))), bad


def _tell(errors: Sequence[str], status: int) -> int:
    """Name what could not be read; ``status`` if there is anything."""
    for error in errors:
        fail(status, error)
    return status if errors else 0
