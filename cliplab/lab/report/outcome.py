"""What a batch ends in: records found, claims judged, the report written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cliplab.lab.batch.spec import Failure
from cliplab.lab.claims.ledger import Claim, registered
from cliplab.lab.claims.rule import judge_all
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.notebook.presets import SEEDS, find_notebooks, preset_params
from cliplab.lab.report import tables
from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.keys import code_key, digest
from cliplab.lab.runs.record import RunRecord, union_rows


def overrides(records: Sequence[RunRecord], notebooks: Path) -> list[list[str]]:
    """For each run, the names of its parameters, seeds aside, that are not as its preset has them.

    All of them where the notebook is none of the collection's.
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
) -> tuple[list[Verdict], Path]:
    """The verdicts of record, also as claims.json, and where the HTML report is.

    The claims are those registered beside the notebooks, if any. ``ValueError``: the records
    cannot be judged together.
    """
    from cliplab.lab.report.site import write_report

    ledger = registered(notebooks)
    try:
        verdicts = judge_records(records, notebooks, ledger)
    except ValueError as error:
        raise ValueError(f"cannot judge: {error}") from None
    text = json.dumps([verdict.to_dict() for verdict in verdicts], indent=1)
    write_atomic(reports / "claims.json", text + "\n")
    return verdicts, write_report(records, verdicts, ledger, reports, failures)


def judge_records(
    records: Sequence[RunRecord], notebooks: Path, ledger: Mapping[str, Claim]
) -> list[Verdict]:
    """Verdicts of the rows at their preset's parameters: the claims speak of no other setting."""
    rows, changed = {}, {}
    for name in dict.fromkeys(record.notebook for record in records):
        own = [record for record in records if record.notebook == name]
        _refuse_overlap(own)
        differing = overrides(own, notebooks)
        names = sorted({n for differs in differing for n in differs})
        at_preset = [r for r, differs in zip(own, differing, strict=True) if not differs]
        settings = {str([record.params[n] for n in names]) for record in own}
        if names and not at_preset:
            changed[name] = f"{', '.join(names)} changed"
        rows[name] = union_rows(at_preset or (own if len(settings) == 1 else []))
    return [
        replace(v, outcome=Outcome.NO_VERDICT, reason=why)
        if (why := changed.get(v.notebook))
        else v
        for v in judge_all(rows, records[0].preset, ledger)
    ]


def _refuse_overlap(records: Sequence[RunRecord]) -> None:
    """A seed that was run twice in portions of different size must not count twice."""
    owner: dict[tuple[str, int], RunRecord] = {}
    for record in records:
        params = record.params
        settings = digest({name: params[name] for name in params if name not in SEEDS})
        first, n = (params[name] for name in SEEDS)
        for seed in range(first, first + n):
            other = owner.setdefault((settings, seed), record)
            if other is not record:
                raise ValueError(
                    f"{record.notebook}: seed {seed} was run twice with the same settings, in "
                    f"{other.directory} and {record.directory}; delete one of them"
                )


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """One line a claim."""
    head = ("claim", "verdict", "effect [90 % interval]", "n", "p (Holm)", "statement")
    rows = [
        (
            v.id,
            v.verdict,
            tables.effect(v),
            tables.number(v.n),
            tables.p_value(v.p_holm),
            v.statement,
        )
        for v in verdicts
    ]
    return tables.aligned([head, *rows])


def failure_table(failures: Sequence[Failure]) -> str:
    """One line a failed run: which, in which cell, why, and where the rest stands."""
    head = ("failed run", "cell", "error", "details")
    rows = [
        (f.spec.label, f.cell or "–", f.error, str(f.spec.directory / "error.txt"))
        for f in failures
    ]
    return tables.aligned([head, *rows])


def remember(results: Path, records: Sequence[RunRecord]) -> None:
    """Note which records the last batch ended with."""
    paths = [str(record.directory / "record.json") for record in records]
    write_atomic(results / "last_run.json", json.dumps(paths, indent=1) + "\n")


def last_records(results: Path) -> list[RunRecord]:
    """The records of the last batch; ``ValueError`` if there are none."""
    last = results / "last_run.json"
    try:
        records = [RunRecord.load(Path(path)) for path in json.loads(last.read_text())]
    except OSError as error:
        raise ValueError(f"no records of a last run ({error}): `cliplab run` first") from None
    if not records:
        raise ValueError(f"{last} lists no records: every run of the last batch failed")
    return records


def preset_records(preset: str, notebooks: Path, results: Path) -> list[RunRecord]:
    """Records of the code as it is now; the newest where only the environment differs."""
    newest: dict[tuple[str, str], RunRecord] = {}
    for notebook in find_notebooks([], notebooks):
        code, folder = code_key(notebook), results / notebook.stem / preset
        records = [RunRecord.load(path) for path in folder.glob("*/record.json")]
        for record in sorted(records, key=lambda r: str(r.provenance["finished"])):
            if record.code_key == code:
                newest[notebook.stem, digest(record.params)] = record
    if not newest:
        raise ValueError(f"no current records of preset {preset!r} in {results}")
    return list(newest.values())
