"""Notebooks through the real runner in both kinds of kernel, smoke preset, no network."""

import re
import sys
from pathlib import Path

import pytest

from cliplab.lab.batch.batch import run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.batch.spec import How
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.notebook.cells import load_cells
from cliplab.lab.runs.record import MIME

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAIRS = [
    pytest.param(
        PATHS[i : i + 2],
        id="-".join(path.stem[:2] for path in PATHS[i : i + 2]),
        marks=[pytest.mark.nightly] * (i % 12 > 0),  # CI runs the others in test_reproduction.py
    )
    for i in range(0, len(PATHS), 2)
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """One worker, and two at once; the package index is out of their reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", "")
        patch.setenv("CLIPLAB_DATA", str(tmp_path_factory.mktemp("empty cache")))
        executors = LocalExecutor(1), LocalExecutor(2)
    yield executors
    for executor in executors:
        executor.kill()


@pytest.mark.parametrize("paths", PAIRS)
def test_forked_and_stock_kernels_and_any_number_of_jobs_give_the_same_outputs(
    paths, smoke, workers, tmp_path
):
    one, two = workers
    first = run_batch(plan(paths, "smoke", smoke), one)
    second = run_batch(plan(paths, "smoke", tmp_path, how=How(kernel="stock")), two)
    assert first.failures == second.failures == []
    for path, forked, stock in zip(paths, first.records, second.records, strict=True):
        assert forked.notebook == stock.notebook == path.stem
        assert forked.provenance["kernel"] == ("forked" if sys.platform == "linux" else "stock")
        assert stock.provenance["kernel"] == "stock"
        assert forked.key == stock.key
        assert forked.rows == stock.rows, path
        assert (forked.curves, forked.choices) == (stock.curves, stock.choices), path
        assert outputs(forked) == outputs(stock), path


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
