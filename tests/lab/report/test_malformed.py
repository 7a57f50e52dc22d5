"""Files of any content: read as they are, or refused in one line that names them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recording import LIGHT
from studying import as_toml, comparison, study

from cliplab.cli.main import main
from cliplab.lab.claims.ledger import registered
from cliplab.lab.notebook.presets import MARK
from cliplab.lab.report.folder import check_folder
from cliplab.lab.report.listing import as_text, describe
from cliplab.lab.report.outcome import judge_and_report, last_records, preset_records, remember
from cliplab.lab.runs.keys import KIND, closure, digest
from cliplab.lab.runs.record import RunRecord

texts = st.text(max_size=8) | st.sampled_from(["", "a", "A/A a", "key", "\ud800", "../x", "a\0"])
numbers = st.integers() | st.floats() | st.sampled_from([0, 1, 10**400, -1, 1e308])
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

LEDGER = """
[C1]
kind = "demonstration"
statement = "a is lower"
notebook = "01_a"
metric = "loss"
better = "lower"
first = "a"
rival = "b"
unit = "nats"
chosen = "-"
source = "-"
literature = "-"
"""
COMPARED = as_toml(comparison(id="C1", notebook="01_a")).removeprefix("family = 1\n")


@pytest.fixture
def project(tmp_path: Path, make_notebook: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_notebook(tmp_path / "notebooks" / "01_a.ipynb", f"{LIGHT}\nrecord([])")
    (tmp_path / "notebooks" / "claims.toml").write_text(LEDGER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored(project: Path) -> dict[str, Any]:
    """A record of the notebook, as on disk, without its hash."""
    code = closure(project / "notebooks" / "01_a.ipynb")
    rows = [
        {"arm": arm, "seed": seed, "loss": 0.5, "norm_median": 1.0, "diverged": False, "of": "a"}
        for arm in ("a", "b", "A/A a")
        for seed in (0, 1)
    ]
    return {
        "notebook": "01_a",
        "preset": "quick",
        "params": {"first_seed": 0, "n_seeds": 2},
        "key": "k" * 64,
        "code_key": code.key,
        "rows": rows,
        "curves": [{"arm": "a", "seed": 0, "name": "n", "x": [0], "y": [1]}],
        "choices": {"a": {"lr": 1}},
        "provenance": {"finished": "2026", "wall_s": 1.0, "cpu_s": None, "versions": {"x": "1"}},
        "made_of": {
            "key": KIND,
            "cells": ["c"],
            "definitions": {"m:d": "h"},
            "reads": {"x.csv": "h"},
        },
        "values": {"loss": 0.5},
    }


def put(folder: Path, content: Any) -> Path:
    """The record of this content, whole by its hash."""
    path = folder / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = content | {"sha256": digest(content)} if isinstance(content, dict) else content
    path.write_text(json.dumps(whole))
    return path


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    below = [places(v, (*at, k)) for k, v in items if isinstance(v, dict | list)]
    return [(*at, k) for k in (value if isinstance(value, dict) else range(len(value)))] + [
        place for found in below for place in found
    ]


def replaced(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    content = json.loads(json.dumps(content))
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return content


@FUZZ
@given(data=st.data())
def test_a_record_may_hold_anything_in_any_place(project, data):
    good = stored(project) | data.draw(st.sampled_from([{}, {"code_key": "of older code"}]))
    place = data.draw(st.sampled_from(places(good)))
    odd = replaced(good, place, data.draw(values))
    try:
        path = put(project / "results" / "01_a" / "quick" / "k", odd)
    except UnicodeEncodeError:  # the hash is of UTF-8: no such record was ever written
        return
    if data.draw(st.booleans(), "without it"):
        del odd[place[0]]
        put(path.parent, odd)
    entry = describe(project / "notebooks/01_a.ipynb", Path("notebooks"), Path("results"))
    as_text(entry)
    json.dumps(entry)
    try:
        records, bad = preset_records("quick", Path("notebooks"), Path("results"))
    except ValueError as error:
        assert "no current records" in str(error)  # noqa: PT017
        return
    assert bad == []
    try:
        judge_and_report(records, Path("notebooks"), Path("reports"))
    except ValueError as error:
        assert str(error).startswith("cannot judge: ")  # noqa: PT017


def test_no_range_of_seeds_is_counted_through(project):
    def judged(*params: dict[str, Any]) -> None:
        runs = [stored(project) | {"params": p, "rows": []} for p in params]
        records = [RunRecord.load(put(Path("r") / str(i), run)) for i, run in enumerate(runs)]
        judge_and_report(records, Path("notebooks"), Path("reports"))

    judged({"first_seed": 0, "n_seeds": 10**15}, {"first_seed": 10**15, "n_seeds": 10**400})
    judged({"first_seed": 3}, {"n_seeds": 2}, {}, {"first_seed": None, "n_seeds": 2})
    with pytest.raises(ValueError, match=r"seed 7 was run twice .* in r.0 and r.1; delete one"):
        judged({"first_seed": 0, "n_seeds": 10**15}, {"first_seed": 7, "n_seeds": 1})


def test_fields_of_other_versions_are_not_looked_at_and_a_missing_one_is_named(tmp_path, project):
    good = stored(project)
    assert RunRecord.load(put(tmp_path, good | {"from_the_future": [1]})).values == {"loss": 0.5}
    assert RunRecord.load(put(tmp_path, {k: v for k, v in good.items() if k != "values"}))
    path = put(tmp_path, {k: v for k, v in good.items() if k != "rows"})
    with pytest.raises(ValueError, match=r"corrupt record .*: no rows"):
        RunRecord.load(path)
    path.write_text(path.read_text().replace("01_a", "01_b"))
    with pytest.raises(ValueError, match="its content does not match its hash"):
        RunRecord.load(path)


@FUZZ
@given(content=values.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=30))
def test_the_list_of_the_last_run_may_hold_anything_and_is_never_lost(tmp_path, content):
    last = tmp_path / "last_run.json"
    for old in tmp_path.iterdir():
        old.unlink()
    last.write_bytes(content)
    with pytest.raises(ValueError, match=r"last_run\.json"):
        last_records(tmp_path)
    remember(tmp_path, [])
    ours = isinstance(found := _json(content), list) and all(isinstance(p, str) for p in found)
    kept = [path.read_bytes() for path in tmp_path.glob("last_run.json.damaged*")]
    assert kept == ([] if ours else [content])


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


@FUZZ
@given(name=st.just("claims.json"), content=values)
def test_what_is_in_the_place_of_a_file_of_the_report_is_ours_or_refused(tmp_path, name, content):
    (tmp_path / MARK).touch()
    for old in tmp_path.glob("*.json"):
        old.unlink()
    text = json.dumps(content)
    (tmp_path / name).write_text(text)
    try:
        check_folder(tmp_path)
    except ValueError as error:
        assert name in str(error)  # noqa: PT017
    assert (tmp_path / name).read_text() == text


def toml(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


tomls = st.recursive(
    st.booleans() | numbers | st.sampled_from(["", "a", "comparison", "a/a", "withdrawn", "lower"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a"), inner),
    max_leaves=6,
)
KEYS = [line.split(" = ")[0] for line in (LEDGER + COMPARED).splitlines() if " = " in line]


@FUZZ
@example(text=LEDGER, key="kind", value=[])
@example(text=COMPARED, key="margin", value=10**400)
@example(text=COMPARED, key="family", value=10**400)
@given(
    text=st.sampled_from([LEDGER, COMPARED]),
    key=st.sampled_from([*dict.fromkeys(KEYS), "arms", "other"]),
    value=tomls,
)
def test_claims_may_hold_anything(tmp_path, text, key, value):
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
    (tmp_path / "claims.toml").write_text("\n".join([*lines, f"{key} = {toml(value)}"]))
    try:
        registered(tmp_path)
    except ValueError as error:
        assert "C1" in str(error) or "claims.toml" in str(error)  # noqa: PT017


STUDIED = json.loads(json.dumps({"rows": study().run("tiny", 0), "about": study().about()}))


@FUZZ
@given(data=st.data())
def test_a_study_may_hold_anything_in_any_place(project, data):
    (project / "notebooks" / "claims.toml").write_text(COMPARED)
    place = data.draw(st.sampled_from(places(STUDIED)))
    odd = replaced(STUDIED, place, data.draw(values))
    if data.draw(st.booleans(), "without it"):
        inner = odd
        for step in place[:-1]:
            inner = inner[step]
        del inner[place[-1]]
    choices = {"studies": {"toy": odd.get("about")}}
    try:
        path = put(Path("r"), stored(project) | {"rows": odd.get("rows", []), "choices": choices})
        record = RunRecord.load(path)
    except (UnicodeEncodeError, ValueError):
        return
    (path.parent / "notebook.ipynb").write_text((project / "notebooks/01_a.ipynb").read_text())
    try:
        judge_and_report([record], Path("notebooks"), Path("reports"))
    except ValueError as error:
        assert str(error).startswith("cannot judge: ")  # noqa: PT017


@pytest.mark.parametrize("content", [b"\xff", b"C1 = 3", b"[", b"a=" + b"[" * 9999])
def test_a_ledger_that_is_none_is_refused_before_any_run(project, capsys, content):
    (project / "notebooks" / "claims.toml").write_bytes(content)
    assert main(["run"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (project / "results").exists()


def test_what_is_bad_is_named_and_the_rest_goes_on(project, make_notebook, capsys):
    (project / "notebooks" / "claims.toml").unlink()
    good = stored(project)
    folder = project / "results" / "01_a" / "quick"
    put(folder / "1", good)
    put(folder / "2", good | {"params": {"first_seed": 5, "n_seeds": 2}})
    for name, text in {"3": "", "4": '{"rows"', "5": '"x"'}.items():
        put(folder / name, good).write_text(text)
    (project / "notebooks" / "02_cut.ipynb").write_text('{"cells": [')
    remember(project / "results", [RunRecord.load(p) for p in folder.glob("[12]/record.json")])
    last = project / "results" / "last_run.json"
    last.write_text(json.dumps([*json.loads(last.read_text()), "01_a/quick/3/record.json", "no"]))

    said = {}
    for command in (["list"], ["report", "--preset", "quick"], ["report"]):
        assert main(command) == 1
        said[command[-1]] = capsys.readouterr()
        assert (project / "reports" / "index.html").exists() == (command != ["list"])
    out, err = said["list"]
    assert [f"{name}/record.json: " in out for name in "12345"] == [False, False, True, True, True]
    assert "02_cut.ipynb" in err
    out, err = said["quick"]
    assert [f"{name}/record.json: " in err for name in "12345"] == [False, False, True, True, True]
    assert "02_cut.ipynb" in err
    out, err = said["report"]
    assert "3/record.json: " in err
    assert "no record results/no\n" in err
    assert err.count("the executed notebook is missing") == 2
    for command in (["list", "notebooks/02_cut.ipynb"], ["run", "notebooks/02_cut.ipynb"]):
        assert main(command) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["run", "--dry-run"]) == 1
    out, err = capsys.readouterr()
    assert "01_a" in out
    assert "02_cut.ipynb" in err


def test_results_can_be_moved(project, capsys):
    (project / "notebooks" / "claims.toml").unlink()
    folder = put(project / "results" / "01_a" / "quick" / "1", stored(project)).parent
    (folder / "notebook.ipynb").write_text((project / "notebooks" / "01_a.ipynb").read_text())
    remember(project / "results", [RunRecord.load(folder / "record.json")])
    assert main(["report"]) == 0
    (project / "results").rename(project / "elsewhere")
    assert main(["report", "--results", "elsewhere"]) == 0
    old = [str(project / "elsewhere" / "01_a" / "quick" / "1" / "record.json")]
    (project / "elsewhere" / "last_run.json").write_text(json.dumps(old))
    assert main(["report", "--results", "elsewhere"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("name", ["01_a", "mine/01_a", "outside/01_a-12345678"])
def test_other_notebooks_get_a_report_without_claims(project, name):
    params = {"lr": None, "net": {"layers": [1, {"a": None}]}}
    good = stored(project) | {"notebook": name, "preset": "mine", "params": params}
    again = good | {"params": params | {"lr": 0.1}, "key": "l" * 64}
    paths = [put(project / "r" / str(i), r) for i, r in enumerate([good, again])]
    records = [RunRecord.load(path) for path in paths]
    verdicts, index, _ = judge_and_report(records, Path("notebooks"), Path("reports"))
    assert verdicts == []
    assert "claim" not in index.read_text().split("</style>")[1]
