"""A run's folder: held by one process at a time, and what a failed attempt leaves there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cliplab.lab.batch.lock import NoLocks, Taken, locked
from cliplab.lab.batch.spec import RunError, RunSpec, load_finished
from cliplab.lab.runs.files import leftovers, write_atomic
from cliplab.lab.runs.record import RunRecord


@contextmanager
def claimed(spec: RunSpec) -> Iterator[None]:
    """Hold the run's folder, with nothing left of an earlier attempt that was killed."""
    try:
        with locked(spec.directory):
            for cut_short in leftovers(spec.directory):
                cut_short.unlink()
            _rescue(spec)
            yield
    except NoLocks as error:
        raise RunError(f"{error}: choose another --results", retry=False) from None


def _rescue(spec: RunSpec) -> None:
    """Keep what was executed of a run that failed or was killed; not in place of a finished one.

    A notebook that was cut short, as on a full disk, is of no use to anybody and goes.
    """
    with suppress(FileNotFoundError):
        try:
            json.loads(spec.scratch_path.read_text(encoding="utf-8"))
        except ValueError:
            spec.scratch_path.unlink()
        else:
            os.replace(spec.scratch_path, spec.failed_path)
    spec.progress_path.unlink(missing_ok=True)


def leave_failed(spec: RunSpec, failure: RunError, log: str) -> None:
    """Put log and notebook of a failed attempt in their place, as far as the disk takes them."""
    failure.cell = failure.cell or running_cell(spec)
    with suppress(OSError):
        _rescue(spec)
    with suppress(OSError):
        write_atomic(spec.error_path, f"{spec.label}\n{log}\n\n{failure}\n")


def leave_done(spec: RunSpec) -> None:
    """Put the executed notebook in its place, and nothing beside it but the record to come."""
    os.replace(spec.scratch_path, spec.directory / "notebook.ipynb")
    spec.progress_path.unlink(missing_ok=True)
    (spec.directory / "failed.ipynb").unlink(missing_ok=True)


def settle(spec: RunSpec, error: str) -> RunRecord | None:
    """The record of a run that is done after all; else what a killed worker could not leave.

    That is error.txt and the notebook. Never raises: the disk may be full.
    """
    with suppress(OSError, RunError, Taken, ValueError), claimed(spec):
        if record := load_finished(spec):
            return record
        if not spec.error_path.exists():
            write_atomic(spec.error_path, f"{spec.label}\n{error}\n")
    return None


def running_cell(spec: RunSpec) -> str:
    """Which cell a run is in, as "3/9", if it says so."""
    try:
        text = spec.progress_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.match(r"cell (\d+/\d+)", text)
    return found[1] if found else ""
