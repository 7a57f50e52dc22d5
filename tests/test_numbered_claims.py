"""docs/claims.md accounts for every claim that once had a number, by names that exist."""

import re
from pathlib import Path

import pytest

from cliplab.lab.claims.ledger import load_ledger

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs" / "claims.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| C")
]
LEDGER = load_ledger(ROOT)


def test_every_number_is_there_once_and_in_order():
    assert [row[0].strip("| ") for row in ROWS] == [f"C{number}" for number in range(1, 55)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].strip("| "))
def test_what_is_done_is_asked_today_and_nothing_withdrawn_is_called_done(row):
    number, said, became = row[0].strip("| "), row[1], row[-1]
    asked = re.findall(r"`([a-z_]+)`", became)
    assert not [name for name in asked if name not in LEDGER.claims]
    withdrawn = number in LEDGER.claims
    assert withdrawn == became.startswith("being asked again")
    assert (
        said == "–"
        or withdrawn
        or asked
        or re.search(r"\b\d\d (asks|draws|shows)|map shows", became)
    )
