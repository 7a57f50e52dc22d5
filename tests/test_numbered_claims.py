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
def test_what_is_done_or_being_asked_again_is_in_the_ledger(row):
    said, became = row[1], row[-1]
    asked = re.findall(r"`([a-z_0-9]+)`", became)
    assert not [name for name in asked if name not in LEDGER.claims]
    assert said == "–" or asked or became.startswith("dropped") or re.search(r"\b\d\d asks", became)


def test_no_number_is_in_the_ledger_any_more():
    assert not {f"C{number}" for number in range(1, 55)} & set(LEDGER.claims)
