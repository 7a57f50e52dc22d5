"""Which runs are asked for: see also test_batch.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.cli.arguments import parse_arguments
from cliplab.lab.batch.plan import only, plan, shard
from cliplab.lab.notebook.parameters import Text
from cliplab.lab.notebook.presets import preset_params
from cliplab.lab.report.outcome import overrides


@pytest.fixture
def specs(tmp_path, make_notebook):
    parameters = "lr: float = 0.1\nsizes: list[int] = [1]"
    notebook = make_notebook(tmp_path / "01.ipynb", "x = 1", parameters=parameters)
    grid = {"lr": [1, 5, 20], "sizes": [[1], [1, 2]]}
    return plan([notebook], "quick", tmp_path / "results", grid=grid, seeds=range(2))


def test_a_filter_keeps_what_has_one_of_the_values(specs):
    found = only(specs, {"lr": [Text("1"), 20], "sizes": [Text("[1,2]")]})
    assert [(s.params["lr"], s.params["sizes"]) for s in found] == [(1, [1, 2]), (20, [1, 2])]
    with pytest.raises(ValueError, match="--filter lr=3: none of the 6 runs is like that"):
        only(specs, {"lr": [Text("3")]})
    with pytest.raises(ValueError, match="unknown parameter 'l' in every notebook"):
        only(specs, {"l": [1]})


@given(total=st.integers(0, 40), count=st.integers(1, 9))
def test_shards_are_everything_once_and_of_equal_size(total, count):
    runs = list(range(total))
    parts = [shard(runs, index, count) for index in range(1, count + 1)]  # type: ignore[arg-type]
    assert sorted(run for part in parts for run in part) == runs
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_grid_comes_from_a_file_too(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('lr = [1, 5]\nmethod = ["none", "norm"]\n')
    options = parse_arguments(["run", "--grid", str(path), "--grid", "x", "1,2", "01"])
    assert options.grid == {"x": ["1", "2"], "lr": [1, 5], "method": ["none", "norm"]}
    assert options.notebook == ["01"]


def test_of_a_notebook_outside_the_collection_every_parameter_counts_as_changed(specs, tmp_path):
    from cliplab.lab.runs.record import RunRecord

    spec = specs[0]
    record = RunRecord("01", "quick", spec.params, "", "", [], [], {}, {}, tmp_path)
    assert overrides([record, record], tmp_path) == [["lr"], ["lr"]]
    assert overrides([record], tmp_path / "elsewhere") == [["lr", "sizes"]]


def test_a_fingerprint_is_the_verdict_but_for_its_own_lines(tmp_path, make_notebook):
    parameters = "lr: float = 0.1\nwidth: int = 64\nupdates: int = 100"
    notebook = make_notebook(tmp_path / "01.ipynb", "x = 1", parameters=parameters)
    tables = "[01.verdict]\nn_seeds = 16\nwidth = 128\n[01.fingerprint]\nn_seeds = 2\nupdates = 20"
    (tmp_path / "presets.toml").write_text(tables)
    verdict, fingerprint = (preset_params(notebook, name) for name in ("verdict", "fingerprint"))
    assert verdict["width"] == 128
    assert fingerprint == verdict | {"n_seeds": 2, "updates": 20}
