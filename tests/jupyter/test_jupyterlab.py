"""JupyterLab as ``make lab`` opens it, in a browser: every notebook, and what git sees of it."""

import pytest
from browsing import (
    COMMENT,
    ROOT,
    browser,
    clone_to,
    commit,
    git,
    make_lab,
    restart_and_run_all,
)
from needs import need

from cliplab.lab.notebook.cells import load_cells

need("playwright", "browser")
pytestmark = pytest.mark.nightly

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
TRAIN = """
import torch, cliplab
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
clipper = cliplab.Clipper(model, threshold=1.0)
clipper.attach(optimizer)
clipper.history.watch(0)
"""
STEPS = """
for _ in range(50):
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
"""
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone whose notebooks load the smoke preset, as anybody's who uncommented the line."""
    clone = clone_to(tmp_path_factory.mktemp("clone"))
    for path in (clone / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(COMMENT, COMMENT.removeprefix("# ")), encoding="utf-8")
    commit(clone)
    return clone


@pytest.fixture(scope="module")
def page(clone, tmp_path_factory):
    with make_lab(clone, tmp_path_factory.mktemp("own")) as url, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1366, "height": 900})
        page.url_of = url
        yield page
        chromium.close()


def run(page, clone, name):
    """The code cells of a notebook as it was saved, once all of it was run."""
    restart_and_run_all(page, page.url_of, f"{name}.ipynb")
    cells = load_cells(clone / "notebooks" / f"{name}.ipynb")
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_restart_and_run_all_works_and_git_stays_clean(page, clone, name):
    cells = run(page, clone, name)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert [one for one in outputs if one["output_type"] == "error"] == []
    assert [one["text"] for one in outputs if one.get("name") == "stderr"] == []
    assert f"preset smoke of {name}: " in cells[1]["outputs"][0]["text"]
    assert git(clone, "status", "--porcelain") == ""
    bars = [one for one in outputs if WIDGET in one.get("data", {})]
    assert bool(bars) == any("Study(" in cell["source"] for cell in cells)


def test_what_is_edited_is_seen_by_git_and_what_is_run_is_not(page, clone):
    path = clone / "notebooks" / "00_what_is_gradient_clipping.ipynb"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("lr: float = 64.0", "lr: float = 32.0"), encoding="utf-8")
    cells = run(page, clone, path.stem)
    assert any(cell["outputs"] for cell in cells)
    changed = git(clone, "diff", "--unified=0", "--", str(path)).splitlines()
    old, new = [line for line in changed if line[0] in "+-"][2:]
    assert old.startswith('-    "lr: float = 64.0')
    assert new.startswith('+    "lr: float = 32.0')
    git(clone, "checkout", "--", str(path))


def test_watch_draws_the_last_step_in_place_and_nothing_else(page, clone, make_notebook):
    cells = ["live = clipper.history.follower", STEPS, "print(live, live.is_open)", "live.close()"]
    make_notebook(clone / "notebooks" / "watch.ipynb", TRAIN, *cells)
    _, watched, *others = run(page, clone, "watch")
    (figure,) = watched["outputs"]
    assert figure["output_type"] == "display_data"
    assert "image/png" in figure["data"]
    shown = [output for cell in others for output in cell["outputs"]]
    assert [one["text"] for one in shown] == ["Live(50 steps drawn, open until close()) True\n"]
