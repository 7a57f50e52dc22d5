"""docs/optimizers.md, measured again: what holds of a clipper at every optimizer."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
import torch
from optimizing import Run, kinds, torch_optimizers

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "optimizers.py")
table = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(table)

TEXT = table.PAGE.read_text("utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ")][2:]
KINDS = list(kinds())


def test_the_page_has_a_row_for_every_optimizer_and_says_what_it_says():
    assert [row.split(" | ")[1] for row in ROWS] == [kind.name for kind in KINDS]
    assert table.page(ROWS) == TEXT


def test_every_optimizer_of_torch_is_in_the_table():
    told = {kind.name.split(",")[0] for kind in KINDS if kind.library == "torch.optim"}
    assert told == set(torch_optimizers())


def test_nothing_is_silently_wrong():
    assert "wrong" not in "\n".join(ROWS)


def told(kind):
    """The row of the page."""
    (row,) = [row for row in ROWS if row.startswith(f"| {kind.library} | {kind.name} |")]
    return row


def cases():
    """All; of other libraries' optimizers that fare alike all but three are for the night."""
    alike = Counter()
    for kind in KINDS:
        fares = told(kind).split(" | ", 2)[2]
        alike[fares] += kind.library != "torch.optim"
        marks = [pytest.mark.nightly] * (alike[fares] > 3 and kind.library != "torch.optim")
        yield pytest.param(kind, id=kind.name, marks=marks)


@pytest.mark.parametrize("kind", list(cases()))
def test_the_row_is_measured(kind):
    assert table.row(kind) == told(kind)


@pytest.mark.parametrize("name", ["schedulefree sgd", "lookahead", "ASGD", "accsgd", "ftrl"])
def test_what_keeps_the_weights_is_found_to(name):
    (kind,) = [kind for kind in KINDS if kind.name == name]
    assert table.keeps(kind)


def test_runs_of_the_same_optimizer_are_equal():
    one, other = Run(KINDS[0]), Run(KINDS[0])
    one.take(*range(3))
    other.take(*range(3))
    assert all(torch.equal(p, q) for p, q in zip(one.params, other.params, strict=True))
