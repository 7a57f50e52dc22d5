"""What notebook 16 has published is of today's records, and its key follows their rows alone."""

import math
import shutil
from pathlib import Path

import pytest

from cliplab.lab.across.measures import measures
from cliplab.lab.across.tasks import read_tasks
from cliplab.lab.claims.ledger import load_ledger
from cliplab.lab.runs.csvrows import read_rows
from cliplab.lab.runs.keys import closure

ROOT = Path(__file__).parents[3]
NAME = "16_across_models"
ROWS = [path for path in [ROOT / "records" / f"{NAME}.csv"] if path.exists()]


def close(published, found):
    if isinstance(found, float) and published is not None:
        return math.isclose(published, found, rel_tol=1e-9, abs_tol=1e-12)
    return published == found


@pytest.mark.slow
@pytest.mark.parametrize("path", ROWS, ids=lambda path: path.stem)
def test_its_published_rows_are_what_todays_records_give(path):
    asked = {c.id for c in load_ledger(ROOT).claims.values() if c.kind == "comparison"}
    found = {
        row["arm"]: row for task in read_tasks(path.parent, asked)[0] for row in measures(task)
    }
    published = {row["arm"]: row for row in read_rows(path.read_text(encoding="utf-8"))}
    assert found.keys() == published.keys(), f"run {NAME} again"
    for arm, row in found.items():
        other = [name for name in row if not close(published[arm].get(name), row[name])]
        assert not other, f"{arm}: {other}: run {NAME} again"


def test_its_key_holds_the_rows_of_every_other_record_and_nothing_else(tmp_path):
    reads = closure(ROOT / "notebooks" / f"{NAME}.ipynb").reads
    others = {path.name for path in (ROOT / "records").glob("*.csv")} - {f"{NAME}.csv"}
    assert {Path(name).name for name in reads} == others
    assert {Path(name).parent.as_posix() for name in reads} == {"../records"}


def test_its_key_moves_with_rows_and_not_with_what_is_said_of_them(tmp_path):
    notebook = tmp_path / "notebooks" / f"{NAME}.ipynb"
    records = tmp_path / "records"
    notebook.parent.mkdir()
    records.mkdir()
    shutil.copy(ROOT / "notebooks" / notebook.name, notebook)
    key = closure(notebook).key
    assert closure(notebook).reads == {}
    for name in ("01_toy.json", "01_toy.registration.json", f"{NAME}.csv"):
        (records / name).write_text("x")
    assert closure(notebook).key == key
    (records / "01_toy.csv").write_text("arm,seed\n")
    joined = closure(notebook).key
    (records / "01_toy.csv").write_text("arm,seed\na,1\n")
    assert len({key, joined, closure(notebook).key}) == 3
