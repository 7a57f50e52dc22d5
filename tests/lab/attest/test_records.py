"""Each published record belongs to today's code, or says that it does not."""

import json
from pathlib import Path

import pytest

from cliplab.lab.attest.carried import state
from cliplab.lab.claims.ledger import load_ledger
from cliplab.lab.notebook.registrations import REGISTRATION, REPLICA, read_registration
from cliplab.lab.runs.keys import code_key

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "records").glob("*.json"))
RECORDS = [path for path in FILES if not path.name.endswith(REGISTRATION)]
REGISTERED = [path for path in FILES if path.name.endswith(REGISTRATION)]


def notebook_of(path):
    stem = path.name.removesuffix(REGISTRATION).removesuffix(".json").removesuffix(REPLICA)
    return ROOT / "notebooks" / f"{stem}.ipynb"


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)
def test_a_record_is_of_todays_code_or_carried_to_it_or_marked_as_superseded(path):
    about = json.loads(path.read_text(encoding="utf-8"))
    notebook = notebook_of(path)
    found = state(about, code_key(notebook))
    pending = f"**superseded, run pending**: {about.get('pending')}"
    claims = load_ledger(ROOT).of_notebook(notebook.stem)
    if found == "superseded":
        assert about.get("pending"), "`cliplab attest`, run it again, or say why it is pending"
        assert pending in (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    elif not any(claim.kind == "withdrawn" for claim in claims):  # those wait for another notebook
        assert "pending" not in about


@pytest.mark.parametrize("path", REGISTERED, ids=lambda p: p.name)
def test_a_registration_is_whole_and_of_a_notebook(path):
    assert notebook_of(path).exists()
    assert read_registration(notebook_of(path))["notebook"] == notebook_of(path).stem
