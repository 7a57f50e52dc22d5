"""Each published record belongs to today's code, or says that it does not."""

import json
from pathlib import Path

import pytest

from cliplab.lab.attest.carried import state
from cliplab.lab.runs.keys import code_key

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "records").glob("*.json")), ids=lambda p: p.stem)
def test_a_record_is_of_todays_code_or_carried_to_it_or_marked_as_superseded(path):
    about = json.loads(path.read_text(encoding="utf-8"))
    found = state(about, code_key(ROOT / "notebooks" / f"{path.stem}.ipynb"))
    pending = f"**superseded, run pending**: {about.get('pending')}"
    if found == "superseded":
        assert about.get("pending"), "`cliplab attest`, run it again, or say why it is pending"
        assert pending in (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    else:
        assert "pending" not in about
