"""One HTML site from all records: the claims with their verdicts, and every executed notebook."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplab.lab.claims.ledger import STUDIED, Ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.notebook.cells import read_notebook, title_and_question
from cliplab.lab.report import grid, tables
from cliplab.lab.report.folder import INDEX, PAGES, claim_folder
from cliplab.lab.report.measured import of_each
from cliplab.lab.report.runpages import RunPages
from cliplab.lab.report.tables import is_number
from cliplab.lab.runs.files import write_atomic

if TYPE_CHECKING:
    import jinja2

    from cliplab.lab.batch.spec import Failure
    from cliplab.lab.runs.record import RunRecord

CHARACTER = 7  # units of the forest plot that a letter takes
# Columns that every trained model has: they say how it went, not what was measured.
TELEMETRY = ("seed", "lr", "threshold", "diverged", "norm_median", "clip_fraction", "excess")


def write_report(
    records: Sequence[RunRecord],
    verdicts: Sequence[Verdict],
    ledger: Ledger,
    out_dir: Path,
    failures: Iterable[Failure] = (),
) -> tuple[Path, list[str]]:
    """Write ``index.html`` and one page a run under ``pages/``, all of it free of network loads.

    The second result says what is wrong with executed notebooks that cannot be shown.
    """
    templates = _environment()
    claim_folder(out_dir)
    pages = RunPages(out_dir / PAGES, templates)
    notebooks = [_notebook(own, ledger, pages) for own in _by_notebook(records)]
    failed = [
        {"href": pages.failed(f), "label": f.spec.label, "cell": f.cell or "–", "error": f.error}
        for f in failures
    ]
    pages.remove_others()
    index = out_dir / INDEX
    html = templates.get_template("index.html.j2").render(
        file=index.name,
        presets=sorted({record.preset for record in records}),
        date=max((_day(record) for record in records), default=""),
        n_rows=sum(len(record.rows) for record in records),
        claims=bool(verdicts),
        verdicts=[v for v in verdicts if v.outcome is not Outcome.WITHDRAWN],
        withdrawn=[v for v in verdicts if v.outcome is Outcome.WITHDRAWN],
        tally=_tally(verdicts),
        forest=_forest(verdicts),
        notebooks=notebooks,
        noise=[row for notebook in notebooks for row in notebook["noise"]],
        first_page={n["name"]: n["pages"][0]["href"] for n in notebooks},
        failures=failed,
    )
    write_atomic(index, html)
    return index, pages.bad


def _environment() -> jinja2.Environment:
    import jinja2
    from markupsafe import Markup, escape

    from cliplab.lab.report.pages import mathml

    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    environment.filters.update(
        number=tables.number,
        p_value=tables.p_value,
        effect=tables.effect,
        of_each=of_each,
        points=tables.points,
        css_class=_css_class,
        json=lambda value: json.dumps(value, ensure_ascii=False),
        tex=lambda text: Markup(mathml(str(escape(text)))),
    )
    return environment


def _css_class(outcome: Outcome) -> str:
    return outcome.replace(" ", "-")


def _day(record: RunRecord) -> str:
    return str(record.provenance.get("finished", ""))[:10]


def _by_notebook(records: Sequence[RunRecord]) -> Iterator[list[RunRecord]]:
    """The records of each notebook and preset, sorted by their names."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.notebook, record.preset].append(record)
    return (groups[name] for name in sorted(groups))


def _notebook(records: list[RunRecord], ledger: Ledger, pages: RunPages) -> dict[str, Any]:
    """What the index says about one notebook and preset; writes the pages of its runs."""
    name = records[0].notebook
    rows = [row for record in records for row in record.rows]
    metric, margin = _metric_and_margin(name, rows, ledger)
    hrefs = [pages.finished(record) for record in records]
    title, question = _title(records)
    columns, lines = grid.grid(records, hrefs, metric)
    varied = grid.varied(records)
    return {
        "name": name,
        "title": title or name,
        "question": question or name,
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
        "pages": [
            _run(record, varied) | {"href": href}
            for record, href in zip(records, hrefs, strict=True)
        ],
    }


def _title(records: Sequence[RunRecord]) -> tuple[str, str]:
    """Title and question of a notebook, as the first of its runs that can be read has them."""
    for record in records:
        with suppress(ValueError):
            return title_and_question(read_notebook(record.directory / "notebook.ipynb"))
    return "", ""


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


def _total(records: list[RunRecord], key: str) -> str:
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


def _tally(verdicts: Sequence[Verdict]) -> dict[Outcome, int]:
    """How many claims had each outcome, the decided ones first."""
    counts = Counter(verdict.outcome for verdict in verdicts)
    return {outcome: counts[outcome] for outcome in Outcome if outcome in counts}


def _forest(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Coordinates of the forest plot: ids, effects over their margins (6 at most), the words."""
    shown = [
        (v, v.loss.low / v.margin, v.loss.effect / v.margin, v.loss.high / v.margin)
        for v in verdicts
        if v.margin and v.loss is not None
    ]
    widest = max((max(-low, high) for _, low, _, high in shown), default=2.0)
    limit = ceil(min(6.0, max(2.0, widest)))
    left = 30 + CHARACTER * max((len(v.id) for v, *_ in shown), default=0)
    right = left + 420

    def x(margins: float) -> float:
        inside = max(-limit, min(limit, margins))
        return round(left + (right - left) * (inside + limit) / (2 * limit), 1)

    rows = [
        {
            "id": v.id,
            "y": 24 + 22 * i,
            "x": x(effect),
            "low": x(low),
            "high": x(high),
            "cut_low": low < -limit,
            "cut_high": high > limit,
            "outcome": v.outcome,
            "verdict": v.verdict,
            "effect": tables.effect(v.loss, v.unit),
        }
        for i, (v, low, effect, high) in enumerate(shown)
    ]
    bottom = 24 + 22 * len(rows)
    return {
        "rows": rows,
        "left_out": [v.id for v in verdicts if v.margin and v.id not in {r["id"] for r in rows}],
        "words": right + 20,
        "width": right + 30 + CHARACTER * max((len(v.verdict) for v, *_ in shown), default=0),
        "bottom": bottom,
        "height": bottom + 44,
        "margin": (x(-1), x(1)),
        "centre": x(0),
        "ticks": [{"x": x(t), "label": tables.number(t)} for t in range(-limit, limit + 1)],
    }
