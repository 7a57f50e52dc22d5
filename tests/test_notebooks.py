"""The collection itself: every notebook through the real runner, smoke preset, no network."""

import json
import re
import sys
from pathlib import Path

import pytest

from cliplab.cli.main import main
from cliplab.lab.notebook.cells import load_cells
from cliplab.lab.runs.record import MIME, RunRecord

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
        status = main(arguments(root, "results", jobs=1))
    return root, status


def arguments(root, results, jobs, *more):
    folders = ["--notebooks", ROOT / "notebooks", "--results", root / results]
    folders += ["--reports", root / "reports"]
    return [str(word) for word in ["run", "--preset", "smoke", "--jobs", jobs, *folders, *more]]


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
        "id", "statement", "notebook", "kind", "verdict", "outcome", "reason", "note",
        "effect", "low", "high", "n", "p",
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


def test_forked_and_stock_kernels_and_any_number_of_jobs_give_the_same_outputs(batch):
    root, _ = batch
    assert main(arguments(root, "again", 2, "--kernel", "stock")) == 0
    first, second = records(root / "results"), records(root / "again")
    for name in NAMES:
        forked, stock = first[name], second[name]
        assert forked.provenance["kernel"] == ("forked" if sys.platform == "linux" else "stock")
        assert stock.provenance["kernel"] == "stock"
        assert forked.key == stock.key
        assert forked.rows == stock.rows, name
        assert (forked.curves, forked.choices) == (stock.curves, stock.choices), name
        assert outputs(forked) == outputs(stock), name


def outputs(record):
    """What each cell shows: text with its times masked, figures to the pixel."""
    shown = []
    for cell in load_cells(record.directory / "notebook.ipynb"):
        streams = "".join(o["text"] for o in cell.get("outputs", []) if "text" in o)
        data = [dict(o["data"]) for o in cell.get("outputs", []) if "data" in o]
        shown.append([mask(streams)])
        for bundle in data:
            texts = {k: mask(v) for k, v in bundle.items() if k.startswith("text/")}
            shown[-1].append(bundle | texts | {MIME: None})
    return shown


def mask(text):
    """Text without what differs from run to run: times, rates, addresses, ids of tables."""
    text = re.sub(r"0x[0-9a-f]+|T_[0-9a-f]{5}", "ID", str(text))
    text = re.sub(r"\s*\b\d+(\.\d+)?\s*(s|ms|min|seconds)\b", " TIME", text)
    lines = text.splitlines()
    return ["RATE" if re.search(r"\b(a|per) second\b", line) else line for line in lines]
