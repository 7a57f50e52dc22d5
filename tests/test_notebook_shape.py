"""What every notebook of the study design looks like, before it is run."""

import re
from pathlib import Path

import pytest

from cliplab.lab.claims.ledger import STUDIED, load_ledger
from cliplab.lab.notebook.cells import load_cells, tagged
from cliplab.lab.notebook.parameters import read_parameters
from cliplab.lab.notebook.presets import preset_params, read_presets

ROOT = Path(__file__).parents[1]
GENERATED = ("found", "recommended")


def opening(path):
    """Where the cell is that says what was found; None without one."""
    places = [tagged(load_cells(path), tag) for tag in GENERATED]
    return next((place for place in places if place is not None), None)


REDONE = [
    path
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    if opening(path) is not None or path.stem.startswith("00")
]
STUDIES = [
    path
    for path in REDONE
    if any(claim.kind in STUDIED for claim in load_ledger(ROOT).of_notebook(path.stem))
]
named = pytest.mark.parametrize("path", REDONE, ids=lambda path: path.stem)
studied = pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)


@named
def test_it_can_be_read_in_one_sitting(path):
    cells = load_cells(path)
    code = [c["source"].splitlines() for c in cells if c["cell_type"] == "code"]
    lines = [line for cell in code for line in cell if line.strip() and line.strip()[0] != "#"]
    prose = [
        c["source"]
        for c in cells
        if c["cell_type"] == "markdown"
        and not {*GENERATED, "words"} & set(c["metadata"].get("tags", []))
    ]
    words = re.findall(r"\S+", "\n".join(prose))
    assert len(lines) <= 400, f"{len(lines)} lines of code"
    assert len(words) <= 1500, f"{len(words)} words"


@named
def test_it_opens_with_what_was_found_and_has_one_published_figure(path):
    cells = load_cells(path)
    if not path.stem.startswith("00"):
        assert opening(path) == 1
        assert cells[1]["cell_type"] == "markdown"
        assert sum("figure" in c["metadata"].get("tags", []) for c in cells) == 1


@studied
def test_its_presets_are_those_of_a_registered_study(path):
    presets = read_presets(path)
    assert presets.keys() >= {"smoke", "fingerprint", "pilot", "quick", "verdict", "full"}
    assert read_parameters(path).keys() >= {"first_seed", "n_seeds", "size"}
    assert preset_params(path, "smoke")["size"] == preset_params(path, "fingerprint")["size"]
    assert preset_params(path, "quick")["size"] == preset_params(path, "pilot")["size"] == "small"
    assert preset_params(path, "verdict")["size"] in ("full", "full32", "half")
    assert preset_params(path, "verdict")["n_seeds"] <= 8


@studied
def test_the_ledgers_names_are_those_of_its_studies(path):
    text = "\n".join(cell["source"] for cell in load_cells(path))
    for claim in load_ledger(ROOT).of_notebook(path.stem):
        if claim.kind in STUDIED:
            for name in (claim.study, claim.first, claim.rival, claim.control):
                assert f'"{name}"' in text, name
            assert f'"{claim.id}"' in text
