"""What is published beside a collection, where a run's report finds it."""

import json
from pathlib import Path

import pytest
from reporting import IDENTITY, NAME, SHOWN, WITHDRAWN, run_record

from cliplab.lab.claims import Claim, Ledger, Outcome
from cliplab.lab.report.beside import Beside, read_beside
from cliplab.lab.report.publish import publish
from cliplab.lab.session import tell

OTHER = Claim(id="other", kind="identity", notebook="02_other", statement="-", arms=("a",))
LEDGER = Ledger({c.id: c for c in (SHOWN, IDENTITY, WITHDRAWN, OTHER)}, 25)
README = "".join(f"<!-- {name}:begin --><!-- {name}:end -->\n" for name in ("answers", "computing"))
CLAIMS = f"""
[identity]
kind = "identity"
statement = "A huge threshold changes nothing"
notebook = "{NAME}"
metric = "same"
arms = ["none"]
source = "-"
"""


@pytest.fixture
def notebooks(tmp_path: Path, make_notebook) -> Path:
    """A collection whose record is published."""
    (tmp_path / "README.md").write_text(README)
    path = make_notebook(tmp_path / "notebooks" / f"{NAME}.ipynb", parameters="lr: float = 0.1")
    path.with_name("presets.toml").write_text(f"[{NAME}.verdict]\n[{NAME}.smoke]\n")
    publish([run_record(tmp_path / "r")], tmp_path, LEDGER)
    return path.parent


def test_a_run_that_decides_nothing_finds_what_was_decided(notebooks):
    found = read_beside(notebooks, LEDGER, "smoke")
    assert {name: v.outcome for name, v in found.verdicts.items()} == {
        "shown": Outcome.SHOWN,
        "identity": Outcome.HOLDS,
    }  # not what was withdrawn, or never run
    assert found.answers == []
    assert read_beside(notebooks, LEDGER, "verdict").verdicts == {}


def test_it_is_found_from_within_the_folder(notebooks, monkeypatch):
    monkeypatch.chdir(notebooks)
    assert read_beside(Path("."), LEDGER, "smoke").verdicts.keys() == {"shown", "identity"}


def test_what_is_superseded_is_not_told_beside_a_run(notebooks):
    about = notebooks.parent / "records" / f"{NAME}.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"pending": "a wrong loss"}))
    about.with_suffix(".png").write_bytes(b"")
    found = read_beside(notebooks, LEDGER, "smoke")
    assert (found.verdicts, found.pictures) == ({}, {})


@pytest.mark.parametrize("ledger", [Ledger(), Ledger({"other": OTHER})])
def test_without_claims_or_records_there_is_nothing(notebooks, ledger):
    assert read_beside(notebooks, ledger, "smoke") == Beside()


def test_a_damaged_record_is_named_and_does_not_cost_the_report(notebooks, tmp_path):
    (notebooks / "claims.toml").write_text(CLAIMS)
    record = run_record(tmp_path / "run", preset="smoke", n=3)
    reports = tmp_path / "reports"
    outcome = tell([record], notebooks=notebooks, reports=reports)
    assert outcome.bad == []
    assert outcome.published["identity"].outcome is Outcome.HOLDS
    assert "here: no verdict (smoke)" in outcome.index.read_text()
    (notebooks.parent / "records" / f"{NAME}.json").write_text("{")
    outcome = tell([record], notebooks=notebooks, reports=reports)
    assert "damaged record" in outcome.bad[0]
    assert outcome.published == {}
    assert "no verdict (smoke)" in outcome.index.read_text()
