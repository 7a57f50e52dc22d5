"""One HTML site from all records: the claims with their verdicts, and every executed notebook."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliplab.lab.claims.ledger import Ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report.beside import Beside, Told
from cliplab.lab.report.beside import told as all_told
from cliplab.lab.report.cards import card, outcomes, published_picture, tallies
from cliplab.lab.report.environment import environment
from cliplab.lab.report.folder import INDEX, PAGES, claim_folder
from cliplab.lab.report.forest import forest
from cliplab.lab.report.runpages import RunPages
from cliplab.lab.report.words import HOW_SURE
from cliplab.lab.runs.files import write_atomic

if TYPE_CHECKING:
    from cliplab.lab.batch.spec import Failure
    from cliplab.lab.runs.record import RunRecord

KINDS = {  # in the order in which an index lists them
    "comparison": "Comparisons",
    "a/a": "A way against itself",
    "estimate": "Estimates",
    "demonstration": "Demonstrations",
    "share": "Shares",
    "identity": "Identities",
}


def write_report(
    records: Sequence[RunRecord],
    verdicts: Sequence[Verdict],
    ledger: Ledger,
    out_dir: Path,
    failures: Iterable[Failure] = (),
    published: Beside | None = None,
) -> tuple[Path, list[str]]:
    """Write ``index.html`` and one page a run under ``pages/``, all of it free of network loads.

    What is ``published`` is told before what this run found. The second result says what is wrong
    with executed notebooks that cannot be shown.
    """
    published = published or Beside()
    templates = environment()
    claim_folder(out_dir)
    pages = RunPages(out_dir / PAGES, templates)
    told = sorted(all_told(verdicts, published.verdicts), key=lambda t: t.verdict.notebook)
    claimed = dict.fromkeys(t.verdict.notebook for t in told)
    numbers = {name: f"n{i}" for i, name in enumerate(claimed)}
    groups = list(_by_notebook(records))
    hrefs = [[pages.address(record) for record in group] for group in groups]
    names = [group[0].notebook for group in groups]
    cards = [
        card(group, own, [t for t in told if t.verdict.notebook == name], ledger)
        | published_picture(published.pictures.get(name))
        for name, group, own in zip(names, groups, hrefs, strict=True)
    ]
    _write_pages(pages, groups, cards, told)
    failed = [
        {"href": pages.failed(f), "label": f.spec.label, "cell": f.cell or "–", "error": f.error}
        for f in failures
    ]
    pages.remove_others()
    index = out_dir / INDEX
    shown = [t.verdict for t in told]
    withdrawn = [Told(v) for v in verdicts if v.outcome is Outcome.WITHDRAWN]
    html = templates.get_template("index.html.j2").render(
        file=index.name,
        presets=sorted({record.preset for record in records}),
        date=max((_day(record) for record in records), default=""),
        n_rows=sum(len(record.rows) for record in records),
        claims=bool(verdicts),
        told=told,
        by_kind={title: own for kind, title in KINDS.items() if (own := _of_kind(told, kind))},
        published=any(t.here for t in told),
        withdrawn=withdrawn,
        tallies=tallies([*told, *withdrawn]),
        choices=_choices(shown, cards, numbers),
        numbers=numbers,
        forest=forest(shown),
        answers=published.answers,
        how_sure=HOW_SURE,
        notebooks=cards,
        noise=[row for one in cards for row in one["noise"]],
        first_page={name: own[0] for name, own in zip(names, hrefs, strict=True)},
        failures=failed,
    )
    write_atomic(index, html)
    return index, pages.bad


def _write_pages(
    pages: RunPages,
    groups: Sequence[Sequence[RunRecord]],
    cards: Sequence[Mapping[str, Any]],
    told: Sequence[Told],
) -> None:
    """A page a run, each with the way to its neighbours; a terminal sees them counted."""
    from tqdm import tqdm

    links = [
        {"href": run["href"].rpartition("/")[2], "title": _called(one, run)}
        for one in cards
        for run in one["pages"]
    ]
    around = [None, *links, None]
    records = tqdm([*chain(*groups)], desc="report", unit="page", leave=False, disable=None)
    for place, record in enumerate(records):
        own = [t for t in told if t.verdict.notebook == record.notebook]
        title = str(links[place]["title"])
        pages.finished(record, title, own, before=around[place], after=around[place + 2])


def _called(one: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """What a page is called: by its notebook, and by its settings where it has more runs."""
    return str(one["title"]) + (f", {run['label']}" if len(one["pages"]) > 1 else "")


def _choices(
    verdicts: Sequence[Verdict], cards: Sequence[Mapping[str, Any]], numbers: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """What comparisons can be filtered by: the values of each attribute, and what they are called.

    A notebook goes by a number, which is safe in a style sheet.
    """
    titles = {one["name"]: str(one["title"]) for one in cards}
    return {
        "outcome": {str(outcome): str(outcome) for outcome in outcomes(verdicts)},
        "kind": {v.kind: v.kind for v in verdicts},
        "notebook": {number: titles.get(name, name) for name, number in numbers.items()},
    }


def _of_kind(told: Sequence[Told], kind: str) -> list[Told]:
    return [one for one in told if one.verdict.kind == kind]


def _day(record: RunRecord) -> str:
    return str(record.provenance.get("finished", ""))[:10]


def _by_notebook(records: Sequence[RunRecord]) -> Iterator[list[RunRecord]]:
    """The records of each notebook and preset, sorted by their names."""
    groups: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.notebook, record.preset].append(record)
    return (groups[name] for name in sorted(groups))
