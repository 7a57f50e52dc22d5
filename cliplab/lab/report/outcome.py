"""What a batch ends in: records found, claims judged, the report written."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from cliplab.lab.batch.spec import Failure
from cliplab.lab.claims.judge import judge_all
from cliplab.lab.claims.ledger import STUDIED, Ledger, registered
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.notebook.presets import (
    SEEDS,
    find_notebooks,
    notebook_name,
    preset_params,
    read_presets,
)
from cliplab.lab.notebook.registrations import read_registration
from cliplab.lab.report.beside import Beside
from cliplab.lab.report.folder import CLAIMS, check_folder
from cliplab.lab.report.registered import as_registered
from cliplab.lab.report.results import load_all, run_folders
from cliplab.lab.runs.files import set_aside, write_atomic
from cliplab.lab.runs.keys import code_key, digest
from cliplab.lab.runs.record import RunRecord, union_rows
from cliplab.lab.runs.register import PRESETS

LAST_RUN = "last_run.json"


def check_reportable(notebooks: Path, reports: Path, results: Path) -> None:
    """``ValueError``, before any run: claims that cannot be read, a folder for something else."""
    if reports.resolve() == results.resolve():
        raise ValueError(f"--reports {reports} is the folder of the results: choose another")
    registered(notebooks)
    check_folder(reports)


def overrides(records: Sequence[RunRecord], notebooks: Path) -> list[list[str]]:
    """For each run, the names of its parameters, seeds aside, that are not as its preset has them.

    All of them where the collection has no such notebook.
    """
    wanted = {}
    for name, preset in {(record.notebook, record.preset) for record in records}:
        path = notebooks / f"{name}.ipynb"
        wanted[name, preset] = preset_params(path, preset) if path.exists() else {}

    def differing(record: RunRecord) -> list[str]:
        values = wanted[record.notebook, record.preset]
        return [n for n, v in record.params.items() if n not in SEEDS and values.get(n) != v]

    return [differing(record) for record in records]


def judge_and_report(
    records: Sequence[RunRecord],
    notebooks: Path,
    reports: Path,
    failures: Sequence[Failure] = (),
    published: Beside | None = None,
) -> tuple[list[Verdict], Path, list[str]]:
    """The verdicts of record, also as claims.json; where the HTML report is; files that are bad.

    The claims are those registered beside the notebooks, if any; what is ``published`` is told
    first. ``ValueError``: the records
    cannot be judged together, or there is no writing where the report goes.
    """
    from cliplab.lab.report.site import write_report

    ledger = registered(notebooks)
    try:
        verdicts, bad = judge_records(records, notebooks, ledger)
    except ValueError as error:
        raise ValueError(f"cannot judge: {error}") from None
    index, damaged = write_report(records, verdicts, ledger, reports, failures, published)
    text = json.dumps([verdict.to_dict() for verdict in verdicts], indent=1)
    write_atomic(reports / CLAIMS, text + "\n")
    return verdicts, index, [*bad, *damaged]


def judge_records(
    records: Sequence[RunRecord], notebooks: Path, ledger: Ledger
) -> tuple[list[Verdict], list[str]]:
    """Verdicts of the rows at their preset's parameters: the claims speak of no other setting.

    They speak of notebooks of the collection, at presets that these have; what is wrong with those
    that cannot be read is the second result.
    """
    rows, changed, studies, deviating = {}, {}, {}, {}
    claimed = {claim.notebook for claim in ledger.claims.values()}
    judged, bad = _registered(records, notebooks, claimed)
    for name in dict.fromkeys(record.notebook for record in judged):
        own = [record for record in judged if record.notebook == name]
        _refuse_overlap(own)
        differing = overrides(own, notebooks)
        names = sorted({n for differs in differing for n in differs})
        at_preset = [r for r, differs in zip(own, differing, strict=True) if not differs]
        settings = {str([record.params.get(n) for n in names]) for record in own}
        if names and not at_preset:
            changed[name] = f"{', '.join(names)} changed"
        rows[name] = union_rows(at_preset or (own if len(settings) == 1 else []))
        studies[name] = own[0].choices.get("studies", {})
        deviating[name] = _deviations(name, own, notebooks, ledger)
    verdicts = []
    for verdict in judge_all(rows, records[0].preset, ledger, studies):
        if why := changed.get(verdict.notebook):
            verdict = replace(verdict, outcome=Outcome.NO_VERDICT, reason=why)
        elif verdict.kind in STUDIED and verdict.outcome is not Outcome.NOT_RUN:
            notes = [verdict.note, *deviating[verdict.notebook]]
            verdict = replace(verdict, note="; ".join(filter(None, notes)))
        verdicts.append(verdict)
    return verdicts, bad


def _deviations(
    name: str, records: Sequence[RunRecord], notebooks: Path, ledger: Ledger
) -> list[str]:
    """Where the runs of a notebook that are to be published are not as registered, in short."""
    runs = [record for record in records if record.preset in PRESETS]
    if not runs:
        return []
    _, found = as_registered(notebooks / f"{name}.ipynb", runs, ledger)
    more = [f"and {len(found) - 2} more deviations"] if len(found) > 3 else found[2:]
    return [*found[:2], *more]


def _registered(
    records: Sequence[RunRecord], notebooks: Path, claimed: Collection[str]
) -> tuple[list[RunRecord], list[str]]:
    """The records that claims speak of, and what is wrong with the notebooks of others."""
    known, bad = set(), []
    for name, preset in dict.fromkeys((record.notebook, record.preset) for record in records):
        path = notebooks / f"{name}.ipynb"
        try:
            if name in claimed and path.exists() and preset in read_presets(path):
                preset_params(path, preset)
                known.add((name, preset))
        except ValueError as error:
            bad.append(str(error))
    return [record for record in records if (record.notebook, record.preset) in known], bad


def seeds_of(record: RunRecord) -> range:
    """The seeds that a run was given; none if its notebook takes none."""
    first, n = (record.params.get(name) for name in SEEDS)
    return range(first, first + n) if type(first) is type(n) is int else range(0)


def _refuse_overlap(records: Sequence[RunRecord]) -> None:
    """A seed that was run twice in portions of different size must not count twice."""
    portions: dict[str, list[tuple[range, RunRecord]]] = defaultdict(list)
    for record in records:
        params = record.params
        settings = digest({name: params[name] for name in params if name not in SEEDS})
        if seeds := seeds_of(record):
            portions[settings].append((seeds, record))
    for own in portions.values():
        own.sort(key=lambda portion: portion[0].start)
        for (seeds, other), (later, record) in pairwise(own):
            if later.start < seeds.stop:
                raise ValueError(
                    f"{record.notebook}: seed {later.start} was run twice with the same settings, "
                    f"in {other.directory} and {record.directory}; delete one of them"
                )


def remember(results: Path, records: Sequence[RunRecord]) -> None:
    """Note which records the last batch ended with, by their place in the results folder."""
    last = results / LAST_RUN
    if last.exists() and _listed(last) is None:
        set_aside(last)
    paths = [os.path.relpath(record.directory / "record.json", results) for record in records]
    write_atomic(last, json.dumps(paths, indent=1) + "\n")


def _listed(last: Path) -> list[str] | None:
    """The paths that :func:`remember` noted; None if it is not its file."""
    try:
        paths = json.loads(last.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    fine = isinstance(paths, list) and all(isinstance(path, str) for path in paths)
    return paths if fine else None


def last_records(results: Path) -> tuple[list[RunRecord], list[str]]:
    """The records of the last batch, and what is wrong with the others; ``ValueError``: none."""
    last = results / LAST_RUN
    if not last.exists():
        raise ValueError(f"no records of a last run in {results}: `cliplab run` first")
    paths = _listed(last)
    if paths is None:
        raise ValueError(f"{last} is damaged, expected a list of records: `cliplab run` again")
    records, bad = load_all(results / path for path in paths)
    if not records:
        raise ValueError(_one_of(bad, f"{last} lists no records: every run of the last one failed"))
    return records, bad


def preset_records(
    preset: str, notebooks: Path, results: Path
) -> tuple[list[RunRecord], list[str]]:
    """Records of the code as it is now, and what is wrong with other files.

    The newest record where only the environment differs; of what is registered, those with its
    seed. ``ValueError``: there are none.
    """
    newest: dict[tuple[str, str], RunRecord] = {}
    bad: list[str] = []
    for name, notebook in _with_results(preset, notebooks, results).items():
        try:
            code = code_key(notebook)
            seed = _registered_seed(notebook, preset)
        except ValueError as error:
            bad.append(str(error))
            continue
        records, damaged = load_all(sorted((results / name / preset).glob("*/record.json")))
        bad += damaged
        for record in sorted(records, key=lambda r: str(r.provenance.get("finished", ""))):
            if record.code_key == code and seed in (None, record.params.get("first_seed")):
                newest[name, digest(record.params)] = record
    if not newest:
        raise ValueError(_one_of(bad, f"no current records of preset {preset!r} in {results}"))
    return list(newest.values()), bad


def _registered_seed(notebook: Path, preset: str) -> int | None:
    registration = read_registration(notebook) if preset in PRESETS else None
    return registration[PRESETS[preset]] if registration else None


def _with_results(preset: str, notebooks: Path, results: Path) -> dict[str, Path]:
    """The notebooks of the folder by name, and those elsewhere that have runs of the preset."""
    found: dict[str, Path] = {}
    with suppress(ValueError):  # there is no such folder, or nothing in it
        found = {notebook_name(path, notebooks): path for path in find_notebooks([], notebooks)}
    for run in run_folders(results):
        elsewhere = Path(f"{run.notebook}.ipynb")
        if run.preset == preset and run.notebook not in found and elsewhere.is_file():
            found[run.notebook] = elsewhere
    return found


def _one_of(bad: Sequence[str], otherwise: str) -> str:
    more = f" (and {len(bad) - 1} more like it)" if len(bad) > 1 else ""
    return f"{otherwise}: {bad[0]}{more}" if bad else otherwise
