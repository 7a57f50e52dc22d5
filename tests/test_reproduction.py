"""The collection by one command: smoke preset, the package index out of reach."""

import json
import re
from pathlib import Path

import pytest

from cliplab.cli.main import main

ROOT = Path(__file__).parents[1]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reports(smoke, tmp_path_factory):
    """What one command for all of it reports; what test_notebooks.py has run is done."""
    folder = tmp_path_factory.mktemp("collection")
    command = ["run", "--preset", "smoke", "--jobs", "2", "--notebooks", ROOT / "notebooks"]
    command += ["--results", smoke, "--reports", folder / "reports"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", "")
        patch.setenv("CLIPLAB_DATA", str(folder / "empty cache"))
        assert main(list(map(str, command))) == 0
    return folder / "reports"


def test_every_notebook_runs_and_every_claim_is_listed_without_a_verdict(reports, smoke):
    found = [path.parts[-4] for path in smoke.glob("*/smoke/*/record.json")]
    assert sorted(found) == NAMES
    claims = json.loads((reports / "claims.json").read_text())
    assert {claim["notebook"] for claim in claims} <= set(NAMES)
    for claim in claims:
        withdrawn = claim["kind"] == "withdrawn"
        assert claim["outcome"] == ("withdrawn" if withdrawn else "no verdict"), claim
        studied = dict.fromkeys(("comparison", "a/a", "estimate"), "failures")
        measured = studied | {"demonstration": "loss"}
        assert claim["kind"] not in measured or claim[measured[claim["kind"]]]["n"], claim
    assert set(claims[0]) == {
        "id", "statement", "notebook", "kind", "verdict", "outcome", "reason", "note",
        "first", "rival", "margin", "failure_margin", "unit", "p_holm",
        "loss", "failures", "control", "usable",
    }  # fmt: skip


def test_the_report_has_a_page_for_every_notebook(reports):
    index = (reports / "index.html").read_text()
    for name in NAMES:
        assert name in index
    pages = list((reports / "pages").glob("*.html"))
    assert len(pages) == len(NAMES)
    for page in pages:
        assert not re.search(r"""(src|href)=["']https?://[^"']+\.(js|css)""", page.read_text())
