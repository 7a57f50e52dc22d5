"""docs/optimizers.md, measured again: what holds of a clipper at every optimizer."""

import importlib.util
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


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_row_is_measured(kind):
    (told,) = [row for row in ROWS if row.startswith(f"| {kind.library} | {kind.name} |")]
    assert table.row(kind) == told


@pytest.mark.parametrize("name", ["schedulefree sgd", "lookahead", "ASGD", "accsgd", "ftrl"])
def test_what_keeps_the_weights_is_found_to(name):
    (kind,) = [kind for kind in KINDS if kind.name == name]
    assert table.keeps(kind)


def test_runs_of_the_same_optimizer_are_equal():
    one, other = Run(KINDS[0]), Run(KINDS[0])
    one.take(*range(3))
    other.take(*range(3))
    assert all(torch.equal(p, q) for p, q in zip(one.params, other.params, strict=True))
