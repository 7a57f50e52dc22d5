"""Which runs are asked for: see also test_batch.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab import session
from cliplab.lab.batch.oneline import one_line
from cliplab.lab.batch.plan import only, plan, shard
from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import How
from cliplab.lab.notebook.presets import preset_params
from cliplab.lab.notebook.values import Text
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


@pytest.fixture
def write(tmp_path):
    """Write a notebook of anybody's: a parameters cell, if any, other cells, and metadata."""

    def make(name, parameters, *cells, **metadata):
        code = {"cell_type": "code", "outputs": [], "execution_count": None}
        found = [{**code, "source": cell, "metadata": {}} for cell in cells]
        if parameters is not None:
            tagged = {"metadata": {"tags": ["parameters"]}}
            found.insert(0, {**code, "source": parameters, **tagged})
        whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": found}
        path = tmp_path / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(whole))
        return path

    return make


def test_anybodys_notebook_is_planned_and_keeps_what_it_has(write, tmp_path):
    cell = "lr = 0.1\nmodel = None\nshape = (1, 2)\nn = 2 * 3"
    path = write("any", cell, "print(lr)")
    (untouched,) = plan([path], "quick", tmp_path)
    assert untouched.params == {"lr": 0.1, "model": None, "shape": [1, 2]}
    assert untouched.given == {}
    assert (untouched.kernel_name, untouched.language) == ("python3", "python")
    params = {"model": {"a": [None]}, "n": Text("7"), "lr": Text("1e-1")}
    specs = plan([path], "quick", tmp_path, params=params, grid={"shape": [Text("(3, 4)"), None]})
    assert [s.given for s in specs] == [
        {"model": {"a": [None]}, "n": 7, "shape": shape} for shape in ([3, 4], None)
    ]
    assert specs[0].params == untouched.params | specs[0].given
    assert len({s.key for s in (untouched, *specs)}) == 3
    assert only(specs, {"shape": [None], "n": [7]}) == specs[1:]


def test_huge_values_make_no_huge_lines_and_text_that_no_file_holds_is_refused(write, tmp_path):
    path = write("odd", "xs = [1]\ntext = ''", "half = '\\ud800'")
    (spec,) = plan(
        [path], "quick", tmp_path, params={"xs": list(range(10**5)), "text": "x" * 10**6}
    )
    assert len(spec.label) < 200
    with pytest.raises(ValueError, match=r"parameter xs: .* is no JSON value") as caught:
        plan([path], "quick", tmp_path, params={"xs": [*range(10**5), {1: 2}]})
    assert len(one_line(caught.value)) <= 500
    (pair,) = plan([path], "quick", tmp_path, params={"text": "\ud83d\ude00"})  # as YAML reads it
    assert pair.given == {"text": "😀"}
    for value in ("\ud800", ["\udcff"], {"a": "\ud800"}):
        with pytest.raises(ValueError, match=r"odd: parameter text: .* surrogates not allowed"):
            plan([path], "quick", tmp_path, params={"text": value})


def test_a_notebook_without_parameters_is_planned_with_any(write, tmp_path):
    path = write("bare", None, "print(lr)\nn = 3")
    assert plan([path], "quick", tmp_path)[0].params == {}
    (spec,) = plan([path], "quick", tmp_path, params={"lr": Text("1")})
    assert spec.params == spec.given == {"lr": 1}
    assert only([spec], {"lr": [1]}) == [spec]
    with pytest.raises(ValueError, match=r"bare: parameter n: .* tag that cell `parameters`"):
        plan([path], "quick", tmp_path, params={"n": 1})


def test_seeds_are_asked_of_those_that_have_them(write, tmp_path):
    for name, cell in [
        ("none", "lr = 1"),
        ("bare", None),
        ("ill", "first_seed = 0\nn_seeds = 'x'"),
    ]:
        path = write(name, cell, "pass")
        options = {"split_seeds": 2} if name == "ill" else {"seeds": range(3)}
        with pytest.raises(ValueError, match=f"^{name}: --(split-)?seeds: .*n_seeds"):
            plan([path], "quick", tmp_path, **options)
    path = write("plain", "first_seed = 0\nn_seeds = 4", "pass")
    chunks = plan([path], "quick", tmp_path, split_seeds=3)
    assert [s.given for s in chunks] == [{"n_seeds": 3}, {"first_seed": 3, "n_seeds": 1}]


def test_another_kernel_and_language_are_planned_or_named(write, tmp_path, monkeypatch):
    folder = tmp_path / "jupyter" / "kernels" / "ir"
    folder.mkdir(parents=True)
    kernel = {"argv": ["R", "{connection_file}"], "display_name": "R", "language": "R"}
    (folder / "kernel.json").write_text(json.dumps(kernel))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = write("r", "lr <- 0.1", "print(lr)", kernelspec={"name": "ir", "language": "R"})
    (spec,) = plan([path], "quick", tmp_path, params={"lr": Text("1e-3")})
    assert (spec.kernel_name, spec.language, spec.given) == ("ir", "R", {"lr": 0.001})
    gone = write("gone", "lr = 0.1", kernelspec={"name": "gone"})
    with pytest.raises(ValueError, match=r"gone\.ipynb: no kernel 'gone' here, only ir, "):
        plan([gone], "quick", tmp_path)
    (ours,) = plan([gone], "quick", tmp_path, how=How(kernel_name="python3"))
    assert ours.kernel_name == "python3"
    plain = write("plain", "lr = 0.1")
    keys = {plan([plain], "quick", tmp_path, how=How(kernel_name=k))[0].key for k in (None, "ir")}
    assert len(keys) == 2


def test_another_folder_is_another_key_wherever_both_lie(write, tmp_path):
    def key(project: str, **how) -> str:
        return plan([write(f"{project}/nb", "lr = 0.1")], "quick", tmp_path, how=How(**how))[0].key

    for project in "ab":
        (tmp_path / project / "data").mkdir(parents=True)
    there = [key(project, cwd=tmp_path / project / "data") for project in "ab"]
    assert key("a") == key("a", cwd=tmp_path / "a") != there[0] == there[1]


def test_two_tables_are_refused_before_anything_runs(write, tmp_path):
    cells = ("from cliplab.lab import record", "record(rows)", "record(rows)")
    with pytest.raises(ValueError, match=r"twice\.ipynb: record\(rows\) takes all rows, once"):
        plan([write("twice", "rows = []", *cells)], "quick", tmp_path)


def test_a_bad_notebook_of_a_folder_stops_nothing_but_itself(write, tmp_path):
    good = write("nb/good", "lr = 0.1")
    (tmp_path / "nb" / "empty.ipynb").touch()
    write("nb/gone", "lr = 0.1", kernelspec={"name": "gone"})
    write("nb/ill", "lr: float = 'x'")
    bad: list[str] = []
    specs = session.plan(notebooks=tmp_path / "nb", results=tmp_path / "results", bad=bad)
    assert [spec.notebook for spec in specs] == [good]
    assert [line.split("nb/")[1].split(".ipynb")[0] for line in bad] == ["empty", "gone", "ill"]
    assert not any("\n" in line for line in bad)
    names = [str(tmp_path / "nb"), str(tmp_path / "nb" / "empty.ipynb")]
    with pytest.raises(ValueError, match=r"cannot read notebook .*empty\.ipynb"):
        session.plan(names, notebooks=tmp_path, bad=[])
    with pytest.raises(ValueError, match=r"cannot read notebook .*empty\.ipynb"):
        session.plan(notebooks=tmp_path / "nb")
    with pytest.raises(ValueError, match="unknown parameter 'x'"):
        session.plan(notebooks=tmp_path / "nb", params={"x": 1}, bad=[])
    good.unlink()
    with pytest.raises(ValueError, match="none of 3 notebooks can be run: cannot read notebook"):
        session.plan(notebooks=tmp_path / "nb", bad=[])


def test_two_notebooks_that_would_share_their_results_are_refused(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [write(name, "lr = 0.1", f"print({name!r})") for name in ("nb/x", "x")]
    with pytest.raises(ValueError, match=r"nb/x\.ipynb and .*x\.ipynb would both be x"):
        plan(paths, "quick", tmp_path / "results")
    for folder in (tmp_path, tmp_path / "nb"):
        specs = session.plan(list(map(str, paths)), notebooks=folder)
        assert len({spec.directory for spec in specs}) == 2


def test_data_are_fetched_for_those_that_load_them(write, tmp_path, monkeypatch):
    fetched: list[str] = []
    monkeypatch.setattr("cliplab.lab.data.fetch.fetch", lambda data: fetched.append(data.name))
    cell = 'corpus = "wikipedia"'
    plain = write("plain", cell, "print(corpus)")
    loads = write("loads", cell, "from cliplab.lab.data.corpora import char_corpus")
    for path, names in [(plain, []), (loads, ["wikipedia"])]:
        session.fetch_data(plan([path], "quick", tmp_path), Silent())
        assert fetched == names
