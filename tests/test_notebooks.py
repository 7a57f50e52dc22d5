"""The collection itself: every notebook through the real runner, smoke preset, no network."""

import json
import re
from pathlib import Path

import pytest

from cliplab.cli import main
from cliplab.lab.runs import RunRecord

ROOT = Path(__file__).parents[1]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """One smoke batch of everything, with the package index out of reach."""
    root = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", "")
        patch.setenv("CLIPLAB_DATA", str(root / "empty cache"))
        status = main(arguments(root, "results", jobs=2))
    return root, status


def arguments(root, results, jobs):
    folders = ["--notebooks", ROOT / "notebooks", "--results", root / results]
    folders += ["--reports", root / "reports"]
    return [str(word) for word in ["run", "--preset", "smoke", "--jobs", jobs, *folders]]


def records(results):
    return {path.parts[-4]: RunRecord.load(path) for path in results.glob("*/smoke/*/record.json")}


def test_every_notebook_runs_and_every_claim_is_listed_without_a_verdict(batch):
    root, status = batch
    assert status == 0
    assert sorted(records(root / "results")) == NAMES
    claims = json.loads((root / "reports" / "claims.json").read_text())
    assert {claim["verdict"] for claim in claims} == {"no verdict (smoke)"}
    assert {claim["notebook"] for claim in claims} <= set(NAMES)
    assert all(claim["n"] for claim in claims)
    assert set(claims[0]) == {
        "id", "statement", "notebook", "kind", "verdict", "effect", "low", "high", "n", "p",
    }  # fmt: skip


def test_the_report_has_a_page_for_every_notebook(batch):
    root, _ = batch
    index = (root / "reports" / "index.html").read_text()
    for name in NAMES:
        assert name in index
    pages = list((root / "reports" / "pages").glob("*.html"))
    assert len(pages) == len(NAMES)
    for page in pages:
        assert not re.search(r"""(src|href)=["']https?://[^"']+\.(js|css)""", page.read_text())


def test_the_same_seeds_give_the_same_rows_at_any_number_of_jobs(batch):
    root, _ = batch
    assert main(arguments(root, "again", jobs=1)) == 0
    first, second = records(root / "results"), records(root / "again")
    for name in NAMES:
        assert first[name].rows == second[name].rows, name
        assert first[name].key == second[name].key
