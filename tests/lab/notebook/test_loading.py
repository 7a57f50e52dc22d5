"""A preset in an open notebook, in a kernel as JupyterLab starts it."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cliplab.lab.batch.plan import plan
from cliplab.lab.batch.worker import run_one
from cliplab.lab.notebook.cells import load_cells
from cliplab.lab.notebook.inside import ASKED
from cliplab.lab.notebook.loading import load_preset

ROOT = Path(__file__).parents[3]
PARAMETERS = "lr: float = 0.1  # rate [> 0]\nsizes: list[int] = [8, 16]  # of layers"
PRESETS = "[01_a.smoke]\nlr = 2\nn_seeds = 1\n[01_a.large]\nsizes = [64]\n[02_b.smoke]\n"
LOAD = "from cliplab.lab import load_preset, check_parameters, record\nload_preset('smoke')"
SHOW = "check_parameters(globals())\nprint(lr, sizes, n_seeds)"

pytestmark = pytest.mark.slow


@pytest.fixture
def notebook(tmp_path, make_notebook, monkeypatch):
    """A notebook of two with presets, the other with other parameters."""
    monkeypatch.delenv(ASKED, raising=False)  # of a run in this process
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    (tmp_path / "presets.toml").write_text(PRESETS)
    make_notebook(tmp_path / "02_b.ipynb")

    def make(*cells, name="01_a"):
        return make_notebook(tmp_path / f"{name}.ipynb", *cells, parameters=PARAMETERS)

    return make


def printed(path, opened=None):
    """What each code cell printed, or the last line of its error, when they are run in order."""
    document = nbformat.read(path, as_version=4)
    client = NotebookClient(
        document, allow_errors=True, resources={"metadata": {"path": path.parent}}
    )
    client.execute(env=os.environ | ({"JPY_SESSION_NAME": str(opened)} if opened else {}))
    return texts(document.cells)


def texts(cells):
    outputs = ((c, c["outputs"]) for c in cells if c["cell_type"] == "code")
    return [
        "".join(o.get("text", "") or f"{o.get('ename')}: {o.get('evalue')}" for o in found)
        for _, found in outputs
    ]


def test_a_preset_sets_its_values_and_takes_back_those_of_another(notebook):
    found = printed(
        notebook(
            LOAD,
            SHOW,
            "load_preset('large')",
            SHOW,
            "load_preset('quick')",
            SHOW,
            "load_preset('quick')",
            "load_preset('huge')",
            SHOW,
        )
    )
    assert found[1] == (
        "preset smoke of 01_a: 2 of 4 parameters changed\n"
        "  lr = 2.0  (was 0.1)\n"
        "  n_seeds = 1  (was 2)\n"
    )
    assert found[2] == "2.0 [8, 16] 1\n"
    assert "3 of 4 parameters changed" in found[3]
    assert found[4] == "0.1 [64] 2\n"
    assert found[6] == "0.1 [8, 16] 2\n"
    assert found[7] == "preset quick of 01_a: 0 of 4 parameters changed\n"
    assert found[8] == "ValueError: 01_a has no preset 'huge', only quick, smoke, large"
    assert found[9] == found[6]


def test_a_copy_has_the_presets_of_its_original_and_unsaved_parameters_count(notebook):
    notebook()
    edited = f"{PARAMETERS.replace('[8, 16]', '[3]')}\nfirst_seed: int = 5\nn_seeds: int = 6"
    copied = notebook(LOAD, SHOW, edited, LOAD, SHOW, name="01_a-Copy1")
    found = printed(copied, opened=copied)
    assert found[2] == "2.0 [8, 16] 1\n"
    assert found[5] == "2.0 [3] 1\n"


def test_where_it_cannot_be_told_which_notebook_it_is_one_names_it(notebook):
    other = notebook(
        "a = 1", LOAD, "load_preset('smoke', notebook='01_a.ipynb')", "print(lr)", name="mine"
    )
    document = nbformat.read(other, as_version=4)
    document.cells[1].source = "first_seed: int = 0"
    nbformat.write(document, other)
    notebook()
    found = printed(other)
    assert found[2].startswith("ValueError: load_preset('smoke'): run the parameters cell first")
    assert found[3].startswith("preset smoke of 01_a: 3 of 4 parameters changed\n")
    assert "lr = 2.0  (was not set)" in found[3]
    assert found[4] == "2.0\n"


def test_what_papermill_put_in_stays(notebook, tmp_path):
    import papermill

    path, out = notebook(LOAD, SHOW), tmp_path / "out.ipynb"
    papermill.execute_notebook(path, out, {"lr": 0.5}, cwd=tmp_path, progress_bar=False)
    found = texts(load_cells(out))
    assert "lr = 0.5  stays, as papermill put it in" in found[2]
    assert found[3] == "0.5 [8, 16] 1\n"


def test_a_batch_goes_by_its_own_parameters(notebook, tmp_path):
    path = notebook(LOAD, SHOW, "record(lr=lr)")
    (spec,) = plan([path], "quick", tmp_path / "results")
    record = run_one(spec)
    assert record.values == {"lr": 0.1}
    assert "undeclared" not in record.provenance
    found = texts(load_cells(record.directory / "notebook.ipynb"))
    assert found[1] == "load_preset('smoke') has no effect in a batch: it goes by --preset and -p\n"


def test_outside_of_a_notebook_it_says_so(monkeypatch):
    monkeypatch.delenv(ASKED, raising=False)
    with pytest.raises(ValueError, match=r"load_preset\('smoke'\) works in an open notebook only"):
        load_preset("smoke")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_notebook_has_the_line_at_its_parameters_check(path):
    line = '# from cliplab.lab import load_preset; load_preset("smoke")  # in JupyterLab: another'
    sources = [c["source"] for c in load_cells(path) if c["cell_type"] == "code"]
    assert f"{line} preset\ncheck_parameters(globals())\n" in sources[1]
