"""What two sides of a comparison hold: a results folder, or published records, by experiment.

An experiment is a notebook, a preset and the parameters but for the seeds: the parts that it was
run in are one.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliplab.lab.attest.checkout import git
from cliplab.lab.notebook.presets import SEEDS
from cliplab.lab.notebook.registrations import REGISTRATION, REPLICA
from cliplab.lab.report.results import chosen, read_records
from cliplab.lab.runs.canonical import digest
from cliplab.lab.runs.csvrows import read_rows
from cliplab.lab.runs.record import RunRecord

Item = tuple[Any, ...]  # its kind, and a row's arm and seed, or a name


@dataclass
class Experiment:
    """What was recorded of it, by item: a row is its columns, everything else one entry."""

    notebook: str
    preset: str
    params: dict[str, Any]
    items: dict[Item, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """Experiments by notebook, preset and the hash of their parameters; what could not be read.

    ``kinds``: what is recorded here at all.
    """

    name: str
    experiments: Mapping[tuple[str, str, str], Experiment]
    kinds: frozenset[str]
    damaged: Sequence[str] = ()


PUBLISHED, RECORDED = frozenset({"row", "choice"}), frozenset({"row", "choice", "value", "curve"})


def open_side(
    name: str, words: Sequence[str], preset: str | None, *, records: Path, notebooks: Path
) -> Side:
    """The side of that name: a folder of results or of published records, else a commit."""
    folder = Path(name)
    if not folder.is_dir():
        return _published(name, _committed(name, records), words, preset, notebooks)
    if any(folder.glob("*.csv")) and any(folder.glob("*.json")) and not _runs_in(folder):
        files = [*folder.glob("*.csv"), *folder.glob("*.json")]
        content = {path.name: path.read_bytes() for path in files}
        return _published(name, content, words, preset, notebooks)
    found, damaged = read_records(folder, words, preset, notebooks=notebooks)
    return Side(name, _experiments(found), RECORDED, damaged)


def _runs_in(folder: Path) -> bool:
    return any(path.is_dir() for path in folder.iterdir())


def _committed(name: str, records: Path) -> dict[str, bytes]:
    """The files of ``records`` at a commit; ``ValueError`` if there is none of that name."""
    try:
        root = Path(git(Path(), "rev-parse", "--show-toplevel"))
    except ValueError:
        raise ValueError(f"{name!r} is no folder, and this is no git repository") from None
    where = os.path.relpath(records.resolve(), root.resolve()).replace(os.sep, "/")
    command = ["git", "-C", str(root), "archive", "--format=tar", f"{name}:{where}"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"{name!r} is neither a folder nor a commit that has {where}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
        read = {member.name: files.extractfile(member) for member in files if member.isfile()}
        return {file: content.read() for file, content in read.items() if content}


def _published(
    name: str,
    files: Mapping[str, bytes],
    words: Sequence[str],
    preset: str | None,
    notebooks: Path,
) -> Side:
    stems = sorted(
        file.removesuffix(".json")
        for file in files
        if file.endswith(".json") and not file.endswith(REGISTRATION)
    )
    names = {stem: stem.removesuffix(REPLICA) for stem in stems}
    wanted = chosen(words, names.values(), notebooks)
    experiments: dict[tuple[str, str, str], Experiment] = {}
    damaged: list[str] = []
    for stem in (stem for stem in stems if names[stem] in wanted):
        try:
            found = _read_published(names[stem], files[f"{stem}.json"], files[f"{stem}.csv"])
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            damaged.append(f"{name}: {stem} is no published record: {error!r}")
        else:
            if preset in (None, found.preset):
                experiments[_identity(found)] = found
    return Side(name, experiments, PUBLISHED, damaged)


def _read_published(notebook: str, about: bytes, rows: bytes) -> Experiment:
    told = json.loads(about)
    found = Experiment(notebook, told["preset"], _without_seeds(told["params"]))
    found.items.update(_rows("row", read_rows(rows.decode())))
    found.items.update(_named("choice", told["choices"]))
    return found


def _experiments(records: Sequence[RunRecord]) -> dict[tuple[str, str, str], Experiment]:
    """Where a row was recorded more than once, the newest counts."""
    experiments: dict[tuple[str, str, str], Experiment] = {}
    for record in sorted(records, key=lambda r: str(r.provenance.get("finished", ""))):
        found = Experiment(record.notebook, record.preset, _without_seeds(record.params))
        found = experiments.setdefault(_identity(found), found)
        found.items.update(_rows("row", record.rows))
        found.items.update(_rows("curve", record.curves, ("arm", "seed", "name")))
        found.items.update(_named("choice", record.choices))
        part = [record.params[name] for name in SEEDS if name in record.params]
        found.items.update(_named("value", record.values, *part))
    return experiments


def _identity(found: Experiment) -> tuple[str, str, str]:
    return found.notebook, found.preset, digest(found.params)


def _without_seeds(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name not in SEEDS}


def _rows(
    kind: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ("arm", "seed")
) -> Iterator[tuple[Item, dict[str, Any]]]:
    """Rows by what they are called, and counted where several are called the same."""
    seen: Counter[Item] = Counter()
    for row in rows:
        item = (kind, *(row.get(name) for name in names))
        seen[item] += 1
        yield (*item, seen[item]), {n: v for n, v in row.items() if n not in names}


def _named(
    kind: str, values: Mapping[str, Any], *part: Any
) -> Iterator[tuple[Item, dict[str, Any]]]:
    for name, value in values.items():
        yield (kind, name, *part), {"": value}
