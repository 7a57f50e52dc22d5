"""The collection itself: every notebook through the real runner, smoke preset, no network."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from cliplab.cli.main import main
from cliplab.lab.batch.batch import run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.notebook.cells import load_cells
from cliplab.lab.runs.record import MIME

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in PATHS]
PAIRS = [PATHS[i : i + 2] for i in range(0, len(PATHS), 2)]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The folder of this session's smoke runs: what one process has run, the others find done."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "smoke"


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """One worker, and two at once; the package index is out of their reach."""
    with pytest.MonkeyPatch.context() as patch:
        out_of_reach(patch, tmp_path_factory.mktemp("empty cache"))
        executors = LocalExecutor(1), LocalExecutor(2)
    yield executors
    for executor in executors:
        executor.kill()


def out_of_reach(patch, cache):
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", "")
    patch.setenv("CLIPLAB_DATA", str(cache))


@pytest.mark.parametrize("paths", PAIRS, ids=lambda paths: "-".join(p.stem[:2] for p in paths))
def test_forked_and_stock_kernels_and_any_number_of_jobs_give_the_same_outputs(
    paths, smoke, workers, tmp_path
):
    one, two = workers
    first = run_batch(plan(paths, "smoke", smoke / "results"), one)
    second = run_batch(plan(paths, "smoke", tmp_path, kernel="stock"), two)
    assert first.failures == second.failures == []
    for path, forked, stock in zip(paths, first.records, second.records, strict=True):
        assert forked.notebook == stock.notebook == path.stem
        assert forked.provenance["kernel"] == ("forked" if sys.platform == "linux" else "stock")
        assert stock.provenance["kernel"] == "stock"
        assert forked.key == stock.key
        assert forked.rows == stock.rows, path
        assert (forked.curves, forked.choices) == (stock.curves, stock.choices), path
        assert outputs(forked) == outputs(stock), path


@pytest.fixture(scope="module")
def reports(smoke, tmp_path_factory):
    """What one command for all of it reports; what the tests above have run is done."""
    folder = tmp_path_factory.mktemp("collection")
    command = ["run", "--preset", "smoke", "--jobs", "2", "--notebooks", ROOT / "notebooks"]
    command += ["--results", smoke / "results", "--reports", folder / "reports"]
    with pytest.MonkeyPatch.context() as patch:
        out_of_reach(patch, folder / "empty cache")
        assert main(list(map(str, command))) == 0
    return folder / "reports"


@pytest.mark.xdist_group("collection")
def test_every_notebook_runs_and_every_claim_is_listed_without_a_verdict(reports, smoke):
    found = [path.parts[-4] for path in smoke.glob("results/*/smoke/*/record.json")]
    assert sorted(found) == NAMES
    claims = json.loads((reports / "claims.json").read_text())
    assert {claim["verdict"] for claim in claims} == {"no verdict (smoke)"}
    assert {claim["notebook"] for claim in claims} <= set(NAMES)
    assert all(claim["n"] for claim in claims)
    assert set(claims[0]) == {
        "id", "statement", "notebook", "kind", "verdict", "outcome", "reason", "note",
        "effect", "low", "high", "n", "p",
    }  # fmt: skip


@pytest.mark.xdist_group("collection")
def test_the_report_has_a_page_for_every_notebook(reports):
    index = (reports / "index.html").read_text()
    for name in NAMES:
        assert name in index
    pages = list((reports / "pages").glob("*.html"))
    assert len(pages) == len(NAMES)
    for page in pages:
        assert not re.search(r"""(src|href)=["']https?://[^"']+\.(js|css)""", page.read_text())


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
