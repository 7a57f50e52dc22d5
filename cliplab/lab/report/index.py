"""``index.csv`` of a results folder: from parameters to outputs, a line for every run in it.

It is made of what lies in the folder, whichever batch put it there, and of itself: what a line
says of a run is not read off the run again. Paths in it start at the results folder.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cliplab.lab.batch.lock import NoLocks, Taken, locked
from cliplab.lab.batch.spec import RunSpec
from cliplab.lab.report.results import RunFolder, run_folders
from cliplab.lab.runs.files import write_atomic

NAME = "index.csv"
FIXED = ("notebook", "preset", "key", "state", "executed")  # an index begins with these
ALL = "parameters"  # the column of all of them, as JSON
PATIENCE_S = 30.0
Parameters = Mapping[str, Any]


def write_index(results: Path, specs: Sequence[RunSpec], say: Callable[[str], object]) -> None:
    """Bring the index in step with the folder; ``specs`` are the runs of this batch.

    Several batches may do so at a time. ``say`` is told why it could not be written.
    """
    path = results / NAME
    batch = {spec.directory: spec.params for spec in specs}
    try:
        _with_lock(results, lambda: _write(path, batch))
    except (OSError, ValueError, Taken, NoLocks) as error:
        say(f"{path} is not written: {error}")


def _with_lock(results: Path, write: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with locked(results):
                write()
            return
        except Taken:
            if time.monotonic() > deadline:
                raise Taken("another batch holds the folder") from None
            time.sleep(0.05)


def _write(path: Path, batch: Mapping[Path, Parameters]) -> None:
    known = _read(path)
    runs: list[tuple[RunFolder, str, Parameters]] = []
    for folder in run_folders(path.parent.resolve()):
        if state := _state(folder):
            key = (folder.notebook, folder.preset, folder.path.name)
            params = batch.get(folder.path) or known.get(key)
            runs.append((folder, state, _recorded(folder) if params is None else params))
    write_atomic(path, _text(runs))


def _state(folder: RunFolder) -> str:
    if folder.record.exists():
        return "done"
    return "failed" if (folder.path / "error.txt").exists() else ""


def _recorded(folder: RunFolder) -> Parameters:
    """The parameters of a run that no batch of late has told of; none where it left no record."""
    try:
        params = json.loads(folder.record.read_bytes())["params"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return params if isinstance(params, dict) else {}


def _read(path: Path) -> dict[tuple[str, str, str], Parameters]:
    """The parameters by notebook, preset and key; ``ValueError`` if the file is not an index."""
    if not path.exists():
        return {}
    csv.field_size_limit(2**31 - 1)  # of a process that reads no CSV but ours
    try:
        lines = csv.DictReader(path.read_text(encoding="utf-8").splitlines(keepends=True))
        if tuple(lines.fieldnames or ())[: len(FIXED)] != FIXED:
            raise ValueError
        return {
            (line["notebook"], line["preset"], line["key"]): dict(json.loads(line[ALL]))
            for line in lines
            if line[ALL] != "{}"
        }
    except (ValueError, KeyError, TypeError, csv.Error):
        raise ValueError("a file of that name is there that is no index of cliplab's") from None


def _text(runs: Sequence[tuple[RunFolder, str, Parameters]]) -> str:
    """The lines: parameters that differ within their notebook in columns of their own."""
    differing = _differing([(folder.notebook, params) for folder, _, params in runs])
    names = dict.fromkeys(name for _, _, params in runs for name in params)
    columns = [name for name in names if any(name in own for own in differing.values())]
    taken = {*FIXED, ALL}
    titles = [f"parameter.{name}" if name in taken else name for name in columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*FIXED, *titles, ALL])
    for folder, state, params in runs:
        own = differing[folder.notebook]
        place = [folder.notebook, folder.preset, folder.path.name, state, _executed(folder)]
        values = [_cell(params[n]) if n in own and n in params else "" for n in columns]
        writer.writerow([*place, *values, json.dumps(params)])
    return text.getvalue()


def _differing(runs: Sequence[tuple[str, Parameters]]) -> dict[str, set[str]]:
    """For each notebook, the names whose values are not the same in all its runs."""
    values: dict[str, dict[str, set[str]]] = {}
    for notebook, params in runs:
        own = values.setdefault(notebook, {})
        for name, value in params.items():
            own.setdefault(name, set()).add(json.dumps(value))
    return {
        notebook: {name for name, found in own.items() if len(found) > 1}
        for notebook, own in values.items()
    }


def _cell(value: Any) -> str:
    """A value as text: texts as they are, everything else as in JSON, None empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _executed(folder: RunFolder) -> str:
    """The executed notebook, or of a failed run what there is of it, seen from the results."""
    for name in ("notebook.ipynb", "failed.ipynb"):
        if (folder.path / name).exists():
            return f"{folder.notebook}/{folder.preset}/{folder.path.name}/{name}"
    return ""
