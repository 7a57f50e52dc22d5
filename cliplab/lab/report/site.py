"""One HTML site from all records: the claims with their verdicts, and every executed notebook."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cliplab.lab.claims.rule import Claim, Verdict, load_ledger
from cliplab.lab.notebook.cells import load_cells
from cliplab.lab.report import tables
from cliplab.lab.runs.files import write_atomic

if TYPE_CHECKING:
    import jinja2

    from cliplab.lab.batch.batch import Failure
    from cliplab.lab.runs.record import RunRecord

_KEPT = ("failed.ipynb", "notebook.ipynb")  # of a failed run, as far as it got
MOST_TEXT = 100_000  # characters of one output that a page shows
_VERDICTS = ("supported", "equivalent", "refuted", "inconclusive")


def write_report(
    records: Sequence[RunRecord],
    verdicts: Sequence[Verdict],
    out_dir: Path,
    failures: Iterable[Failure] = (),
    ledger: Mapping[str, Claim] | None = None,
) -> Path:
    """Write ``index.html`` and one page a run under ``pages/``, all of it free of network loads."""
    templates = _environment()
    pages = Path(out_dir) / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    ledger = load_ledger() if ledger is None else ledger
    notebooks = [
        _notebook([r for r in records if (r.notebook, r.preset) == group], ledger, pages, templates)
        for group in sorted({(record.notebook, record.preset) for record in records})
    ]
    failed = [_failure(failure, pages, templates) for failure in failures]
    kept = {page["href"] for notebook in notebooks for page in notebook["pages"]}
    kept |= {failure["href"] for failure in failed}
    for path in pages.glob("*.html"):
        if f"pages/{path.name}" not in kept:
            path.unlink(missing_ok=True)  # another batch may do the same
    index = Path(out_dir) / "index.html"
    html = templates.get_template("index.html.j2").render(
        presets=sorted({record.preset for record in records}),
        date=max((str(r.provenance.get("finished", ""))[:10] for r in records), default=""),
        n_rows=sum(len(record.rows) for record in records),
        verdicts=verdicts,
        tally=_tally(verdicts),
        forest=_forest(verdicts),
        calibration=_calibration(verdicts, Path(out_dir)),
        notebooks=notebooks,
        noise=[row for notebook in notebooks for row in notebook["noise"]],
        first_page={n["name"]: n["pages"][0]["href"] for n in notebooks},
        failures=failed,
    )
    write_atomic(index, html)
    return index


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
        json=lambda value: json.dumps(value, ensure_ascii=False),
        tex=lambda text: Markup(mathml(str(escape(text)))),
    )
    return environment


def _notebook(
    records: list[RunRecord],
    ledger: Mapping[str, Claim],
    pages: Path,
    templates: jinja2.Environment,
) -> dict[str, Any]:
    """What the index says about one notebook and preset; writes the pages of its runs."""
    name = records[0].notebook
    rows = [row for record in records for row in record.rows]
    metric, margin = _metric_and_margin(name, rows, ledger)
    first = records[0].params
    varied = [key for key in first if any(r.params.get(key) != first[key] for r in records)]
    title, question = _title_and_question(records[0].directory / "notebook.ipynb")
    return {
        "name": name,
        "title": title or name,
        "question": question or name,
        "metric": metric,
        "models": tables.across_models(rows, metric),
        "noise": [
            row | {"notebook": name, "margin": margin} for row in tables.noise_floor(rows, metric)
        ],
        "n_rows": len(rows),
        "wall": _total(records, "wall_s"),
        "cpu": _total(records, "cpu_s"),
        "pages": [_page(record, varied, pages, templates) for record in records],
    }


def _title_and_question(notebook: Path) -> tuple[str, str]:
    from cliplab.lab.notebook.cells import title_and_question

    cells = [SimpleNamespace(**cell) for cell in load_cells(notebook)]  # nbformat loads slowly
    return title_and_question(SimpleNamespace(cells=cells))


def _failure(failure: Failure, pages: Path, templates: jinja2.Environment) -> dict[str, str]:
    """The page of a failed run: its notebook as far as it got, or what is known without one."""
    spec, log = failure.spec, failure.spec.directory / "error.txt"
    notebook = next(filter(Path.exists, (spec.directory / name for name in _KEPT)), None)
    name = f"failed-{spec.notebook.stem}-{spec.preset}-{spec.key[:8]}.html"
    _write_page(
        pages / name,
        templates,
        title=f"{spec.notebook.stem} failed",
        subtitle=f"{spec.notebook.stem}, preset {spec.preset}, run {spec.key[:8]}",
        params=spec.params,
        error=log.read_text(encoding="utf-8") if log.exists() else failure.error,
        body=_body(notebook) if notebook else "",
    )
    error = {"cell": failure.cell or "–", "error": failure.error}
    return {"href": f"pages/{name}", "label": spec.label} | error


def _metric_and_margin(
    notebook: str, rows: list[dict[str, Any]], ledger: Mapping[str, Claim]
) -> tuple[str | None, float | None]:
    """The metric (and margin) of the first claim the notebook owns that its rows can show."""
    columns = {column for row in rows for column in row}
    for claim in ledger.values():
        if claim.notebook == notebook and claim.metric in columns:
            return claim.metric, claim.margin
    return next((m for m in ("val_loss", "error", "solved") if m in columns), None), None


def _total(records: list[RunRecord], key: str) -> str:
    return tables.duration(sum(record.provenance.get(key) or 0 for record in records))


def _page(
    record: RunRecord, varied: Sequence[str], pages: Path, templates: jinja2.Environment
) -> dict[str, Any]:
    name = f"{record.notebook}-{record.preset}-{record.key[:8]}.html"
    if not _is_current(pages / name, record.directory / "notebook.ipynb"):
        _write_page(
            pages / name,
            templates,
            title=record.notebook,
            subtitle=f"{record.notebook}, preset {record.preset}, run {record.key[:8]}",
            params=record.params,
            body=_body(record.directory / "notebook.ipynb"),
        )
    settings = ", ".join(f"{key}={record.params.get(key)}" for key in varied)
    provenance = {**tables.flat(record.provenance), "code key": record.code_key, "key": record.key}
    choices = {f"chosen {key}": value for key, value in tables.flat(record.choices).items()}
    return {
        "href": f"pages/{name}",
        "label": " ".join(filter(None, [record.preset, settings])),
        "provenance": provenance | choices,
    }


def _is_current(page: Path, notebook: Path) -> bool:
    """Whether a page was made after its notebook, and by today's code."""
    made = page.stat().st_mtime_ns if page.exists() else 0
    return made > max(notebook.stat().st_mtime_ns, _code_changed_ns())


@cache
def _code_changed_ns() -> int:
    """When the code that makes pages was last changed; looked up once for all pages."""
    folder = Path(__file__).parent
    sources = [folder / "pages.py", folder / "site.py", *(folder / "templates").iterdir()]
    return max(source.stat().st_mtime_ns for source in sources)


def _body(path: Path) -> str:
    import cliplab.lab.kernels.light_jsonschema  # noqa: F401

    # isort: split
    import nbformat

    from cliplab.lab.report.pages import notebook_body

    try:
        notebook = nbformat.read(path, as_version=4)
    except ValueError:  # its process ended while it was written
        return "<p>The notebook is damaged.</p>"
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if len(text := output.get("text", "")) > MOST_TEXT:
                left_out = len(text) - MOST_TEXT
                note = f"[… {left_out:,} more characters in {path}]"
                output.text = f"{text[:MOST_TEXT]}\n{note}\n"
    return notebook_body(notebook)


def _write_page(path: Path, templates: jinja2.Environment, **content: Any) -> None:
    path.write_text(templates.get_template("page.html.j2").render(content), encoding="utf-8")


def _calibration(verdicts: Sequence[Verdict], out_dir: Path) -> list[str]:
    """What is known of the verdict rule, where it gave a verdict."""
    from cliplab.lab.claims.calibration import kept_lines

    given = [v for v in verdicts if not v.verdict.startswith(("no verdict", "not run"))]
    return kept_lines(out_dir / "calibration.json") if given else []


def _tally(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many claims got each verdict, the decided ones first."""
    counts = Counter(verdict.verdict.split(" (n=")[0] for verdict in verdicts)
    return {v: counts.pop(v) for v in _VERDICTS if v in counts} | dict(sorted(counts.items()))


def _forest(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Coordinates of the forest plot: effects over their margins, at most 6 margins either way."""
    shown = [
        (v, v.low / v.margin, v.effect / v.margin, v.high / v.margin)
        for v in verdicts
        if v.margin and v.effect is not None and v.low is not None and v.high is not None
    ]
    widest = max((max(-low, high) for _, low, _, high in shown), default=2.0)
    limit = ceil(min(6.0, max(2.0, widest)))
    left, right = 190, 700

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
            "kind": v.verdict.split()[0],
            "verdict": v.verdict,
            "effect": tables.effect(v),
        }
        for i, (v, low, effect, high) in enumerate(shown)
    ]
    bottom = 24 + 22 * len(rows)
    return {
        "rows": rows,
        "left_out": [v.id for v in verdicts if v.id not in {row["id"] for row in rows}],
        "bottom": bottom,
        "height": bottom + 44,
        "margin": (x(-1), x(1)),
        "centre": x(0),
        "ticks": [{"x": x(t), "label": tables.number(t)} for t in range(-limit, limit + 1)],
    }
