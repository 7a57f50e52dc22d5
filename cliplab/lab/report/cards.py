"""What the index says of one notebook and preset: its question, its outcomes, its runs."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplab.lab.claims.ledger import STUDIED, Ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.notebook.cells import read_notebook, tagged, title_and_question
from cliplab.lab.report import grid, tables
from cliplab.lab.report.alt import Figures
from cliplab.lab.report.beside import Told
from cliplab.lab.report.pictures import is_plot, thumbnail
from cliplab.lab.report.tables import is_number

if TYPE_CHECKING:
    from cliplab.lab.runs.record import RunRecord

# Columns that every trained model has: they say how it went, not what was measured.
TELEMETRY = ("seed", "lr", "threshold", "diverged", "norm_median", "clip_fraction", "excess")
PICTURES = ("image/png", "image/jpeg")


def card(
    records: Sequence[RunRecord],
    hrefs: Sequence[str],
    told: Iterable[Told],
    ledger: Ledger,
) -> dict[str, Any]:
    """All that the index shows of the runs of one notebook and preset; ``hrefs``: their pages."""
    name = records[0].notebook
    rows = [row for record in records for row in record.rows]
    metric, margin = _metric_and_margin(name, rows, ledger)
    columns, lines = grid.grid(records, hrefs, metric)
    varied = grid.varied(records)
    runs = [_run(r, varied) | {"href": h} for r, h in zip(records, hrefs, strict=True)]
    return {
        "name": name,
        **_shown_of(records),
        "tallies": tallies(told),
        "metric": metric,
        "models": [] if grid.has_settings(records) else tables.across_models(_shown(rows), metric),
        "noise": [
            row | {"notebook": name, "margin": margin} for row in tables.noise_floor(rows, metric)
        ],
        "columns": columns,
        "lines": lines,
        "n_rows": len(rows),
        "wall": _total(records, "wall_s"),
        "cpu": _total(records, "cpu_s"),
        "pages": runs,
    }


def published_picture(path: Path | None) -> dict[str, Any]:
    """The picture of a published run, in place of the one of this run."""
    picture = path.read_bytes() if path else b""
    small = thumbnail(picture) if picture else ""
    return {"picture": small, "plot": is_plot(picture)} if small else {}


def tallies(told: Iterable[Told]) -> dict[str, dict[Outcome, int]]:
    """How many claims had each outcome: of those that are published, and of this run's own."""
    told = list(told)
    return {
        "published:": outcomes(one.verdict for one in told if one.here),
        "": outcomes(one.verdict for one in told if not one.here),
    }


def outcomes(verdicts: Iterable[Verdict]) -> dict[Outcome, int]:
    """How many claims had each outcome, the decided ones first."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return {outcome: counts[outcome] for outcome in Outcome if outcome in counts}


def _shown_of(records: Sequence[RunRecord]) -> dict[str, Any]:
    """Title, question and a picture, as the first of the runs that can be read has them."""
    name = records[0].notebook
    for record in records:
        with suppress(ValueError):
            notebook = read_notebook(record.directory / "notebook.ipynb")
            title, question = title_and_question(notebook)
            return {
                "title": title or name,
                "question": question or name,
                **_picture(notebook["cells"]),
            }
    return {"title": name, "question": name}


def _picture(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figure that stands for the notebook: of the cell tagged so, else the first one."""
    figures = Figures(cells)
    found = [
        (place, data[kind], figures.alt(place, str(data.get("text/plain", ""))))
        for place, cell in enumerate(cells)
        for output in cell.get("outputs", [])
        for data in [output.get("data", {})]
        for kind in PICTURES
        if kind in data
    ]
    marked = tagged(cells, "figure")
    for _, content, alt in sorted(found, key=lambda one: one[0] != marked):
        with suppress(ValueError):
            picture = base64.b64decode(content)
            if small := thumbnail(picture):
                return {"picture": small, "alt": alt, "plot": is_plot(picture)}
    return {}


def _metric_and_margin(
    notebook: str, rows: list[dict[str, Any]], ledger: Ledger
) -> tuple[str | None, float | None]:
    """The metric (and margin) of a study, or of the first claim that the rows can show."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for column, value in row.items():
            columns[column].append(value)
    own = ledger.of_notebook(notebook)
    if "study" in columns and (margins := [c.margin for c in own if c.kind in STUDIED]):
        return "test_loss", margins[0]
    if metric := next((c.metric for c in own if c.metric in columns), None):
        return metric, None
    numbers = [c for c in columns if c not in TELEMETRY and all(map(is_number, columns[c]))]
    return next((m for m in ("val_loss", "error", "solved", *numbers) if m in columns), None), None


def _total(records: Sequence[RunRecord], key: str) -> str:
    return tables.duration(sum(record.provenance.get(key) or 0 for record in records))


def _run(record: RunRecord, varied: Sequence[str]) -> dict[str, Any]:
    """What the index says about one run: what tells it from others, where it comes from."""
    settings = ", ".join(f"{key}={grid.exact(record.params.get(key))}" for key in varied)
    provenance = {**tables.flat(record.provenance), "code key": record.code_key, "key": record.key}
    choices = {f"chosen {key}": value for key, value in tables.flat(record.choices).items()}
    return {
        "label": " ".join(filter(None, [record.preset, settings])),
        "provenance": provenance | choices,
    }


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as tables show them: of a study its finalists, all of a way together."""
    return [
        row | {"arm": f"{row['study']}: {row['way']}, finalists"} if row.get("study") else row
        for row in rows
        if row.get("stage") in (None, "finalists")
    ]
