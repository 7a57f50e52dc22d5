"""Published records: exact CSV, and README and RESULTS.md in step with it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
import reporting as fakes
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.claims import Ledger
from cliplab.lab.report.answered import sizes
from cliplab.lab.report.markdown import markdown
from cliplab.lab.report.publish import publish, regenerate, stale
from cliplab.lab.runs.csvrows import read_rows, write_rows
from cliplab.lab.runs.keys import code_key

ROOT = Path(__file__).parents[3]
REST = "<!-- computing:begin --><!-- computing:end -->\n"
README = (
    "# cliplab\n\n<!-- answers:begin -->\nold\n<!-- answers:end -->\n\nThe rest | stays.\r\n" + REST
)
ANSWERS = """
[[answer]]
question = "Is it so?"
says = [{always = "it is"}]
notebooks = ["01_toy"]
[[decision]]
situation = "A loss"
advice = {always = "Clip"}
"""
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["", "true", "1", "1e5", "inf", "nan", '"', '"x"', " 1", "1_0", "\r\n"])
)  # fmt: skip
columns = st.sampled_from(["a", "b", "A b", "ä,", "", '"', "true"])


@given(st.dictionaries(st.tuples(st.text(min_size=1, max_size=4), st.integers()),
                       st.dictionaries(columns, scalars), min_size=1, max_size=6))  # fmt: skip
def test_rows_come_back_exactly(table) -> None:
    rows = [{"arm": arm, "seed": seed} | rest for (arm, seed), rest in table.items()]
    back = read_rows(write_rows(rows))
    assert write_rows(reversed(rows)) == write_rows(rows) == write_rows(back)
    every = set().union(*rows)
    restored = {(row["arm"], row["seed"]): row for row in back}
    assert len(back) == len(restored) == len(rows)
    for row in rows:
        for column in every:
            wanted, got = row.get(column), restored[row["arm"], row["seed"]][column]
            assert type(got) is type(wanted)
            assert repr(got) == repr(wanted)  # tells 0.0 from -0.0


def test_a_row_is_one_line_of_readable_text() -> None:
    text = write_rows([
        {"arm": "b", "seed": 1, "loss": 0.1, "ok": True, "threshold": None, "model": "two\nlines"},
        {"arm": "a", "seed": 2, "loss": 1e-05, "ok": False, "threshold": 1.0, "model": "RNN"},
    ])  # fmt: skip
    assert text == (
        "arm,seed,loss,model,ok,threshold\n"
        "a,2,1e-05,RNN,false,1.0\n"
        'b,1,0.1,"""two\\nlines""",true,\n'
    )


def test_what_is_no_scalar_is_refused() -> None:
    with pytest.raises(TypeError, match=r"\[1\] in a row, expected text"):
        write_rows([{"arm": "a", "seed": 0, "x": [1]}])


DEMONSTRATED = Ledger({c.id: c for c in (fakes.SHOWN, fakes.IDENTITY, fakes.WITHDRAWN)}, 25)
FOUND = "*Not measured yet.*"


@pytest.fixture
def root(tmp_path: Path, make_notebook: Any) -> Path:
    (tmp_path / "README.md").write_text(README, newline="")
    notebook = tmp_path / "notebooks" / f"{fakes.NAME}.ipynb"
    make_notebook(notebook, "x = 1", parameters="lr: float = 0.1")
    content = json.loads(notebook.read_text())
    cell = {"cell_type": "markdown", "id": "found", "metadata": {"tags": ["found"]}}
    content["cells"].insert(1, cell | {"source": [FOUND]})
    notebook.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    (tmp_path / "notebooks" / "presets.toml").write_text(f"[{fakes.NAME}.verdict]\n")
    return tmp_path


def test_publishing_writes_records_results_and_only_the_table_of_the_readme(root: Path) -> None:
    parts = [fakes.run_record(root / "r", first_seed=s, n=n) for s, n in ((2006, 2), (2000, 6))]
    changed = publish(parts, root, DEMONSTRATED)
    notebook = f"notebooks/{fakes.NAME}.ipynb"
    names = [f"records/{fakes.NAME}.csv", f"records/{fakes.NAME}.json", "RESULTS.md", "README.md"]
    page = [f"docs/notebooks/{fakes.NAME}.md", f"docs/notebooks/{fakes.NAME}_1.png"]
    names[2:2] = page
    assert [path.relative_to(root).as_posix() for path in changed] == [*names, notebook]

    rows = read_rows((root / names[0]).read_text())
    assert len(rows) == 24
    assert {row["seed"] for row in rows} == set(range(2000, 2008))
    about = json.loads((root / names[1]).read_text())
    assert about["params"] == {"lr": 0.1, "first_seed": 2000, "n_seeds": 8}
    assert about["choices"] == {"clip 1": {"lr": 0.1}}
    assert about["provenance"]["wall_s"] == 250.0
    assert about["provenance"]["finished"] == "2026-01-02"
    assert "registration" not in about  # no study answers a claim

    results = (root / "RESULTS.md").read_text()
    [line] = [
        line for line in results.splitlines() if line.startswith(f"| {fakes.SHOWN.statement}")
    ]
    assert "| +0.170 [+0.155, +0.185] nats | 8 | diverged: 0 of 8 and 4 of 8 |" in line
    assert "unclipped runs fail there" in line
    assert "no number given (a \\| paper)" in line
    assert "| A huge threshold changes nothing | holds, in all 8 rows |" in results
    assert "C1: It was claimed once" in results
    assert "do not edit" in results

    readme = (root / "README.md").read_bytes().decode()
    head, tail = README.split("old")
    assert readme.startswith(head)
    assert tail.removesuffix(REST) in readme
    assert "The published runs of 1 notebooks took" in readme
    assert f"[{fakes.NAME}](notebooks/{fakes.NAME}.ipynb)" in results
    assert "Does clipping at $c = 1$ prevent explosion?" in results
    assert "withdrawn, being redone" in results


def test_regenerating_changes_nothing_until_something_changed(root: Path) -> None:
    record = fakes.run_record(root / "r")
    publish([record], root, DEMONSTRATED)
    assert stale(root, DEMONSTRATED) == []
    assert regenerate(root, DEMONSTRATED) == []
    assert publish([record], root, DEMONSTRATED) == []

    (root / "RESULTS.md").write_text("edited")
    assert stale(root, DEMONSTRATED) == ["RESULTS.md"]
    csv = root / "records" / f"{fakes.NAME}.csv"
    better = [row | {"val_loss": 9.0 if row["arm"] == "none" else 1.0} for row in record.rows]
    csv.write_text(write_rows(better))
    changed = ["RESULTS.md", f"{fakes.NAME}.ipynb"]
    assert stale(root, DEMONSTRATED) == changed
    assert [path.name for path in regenerate(root, DEMONSTRATED)] == changed
    assert "+8.00 [+8.00, +8.00] nats" in (root / "RESULTS.md").read_text()


def test_what_was_found_opens_the_notebook_and_changes_none_of_its_code(root: Path) -> None:
    notebook = root / "notebooks" / f"{fakes.NAME}.ipynb"
    before, key = json.loads(notebook.read_text()), code_key(notebook)
    publish([fakes.run_record(root / "r")], root, DEMONSTRATED)
    after = json.loads(notebook.read_text())
    found = "".join(after["cells"][1].pop("source"))
    assert "+0.170 [+0.155, +0.185] nats, 8 seeds (a demonstration" in found
    assert "A huge threshold changes nothing: holds" in found
    assert "It was claimed once" not in found
    before["cells"][1].pop("source")
    assert after == before
    assert code_key(notebook) == key
    nbformat.validate(nbformat.read(notebook, 4))
    (root / "records" / f"{fakes.NAME}.csv").unlink()
    regenerate(root, DEMONSTRATED)
    assert json.loads(notebook.read_text())["cells"][1]["source"] == [FOUND]


def test_the_title_tells_how_long_runs_took(root: Path) -> None:
    notebook = root / "notebooks" / f"{fakes.NAME}.ipynb"
    content = json.loads(notebook.read_text())
    told = "# Is it?\n\n**Expected time** (one core): {} · full days."
    title = {"cell_type": "markdown", "id": "title", "metadata": {}}
    content["cells"].insert(0, title | {"source": told.format("verdict 10 to 15 minutes")})
    notebook.write_text(json.dumps(content))
    record = fakes.run_record(root / "r")
    record.provenance["cpu_s"] = 440.0
    publish([record], root, DEMONSTRATED)
    short = [fakes.run_record(root / "s", preset="quick", first_seed=s, n=1) for s in (1, 2)]
    for part in short:
        part.provenance["cpu_s"] = 2.0
    changed = publish(short, root, DEMONSTRATED)
    assert {notebook, root / "records" / "times.toml"} <= set(changed)
    source = json.loads(notebook.read_text())["cells"][0]["source"]
    assert "".join(source) == told.format("quick 4 seconds · verdict about 7 minutes")
    assert stale(root, DEMONSTRATED) == []


def test_a_found_cell_of_code_is_left_alone_and_refused(root: Path) -> None:
    notebook = root / "notebooks" / f"{fakes.NAME}.ipynb"
    content = json.loads(notebook.read_text())
    content["cells"][-1]["metadata"] = {"tags": ["found"]}
    del content["cells"][1]
    notebook.write_text(text := json.dumps(content))
    with pytest.raises(ValueError, match=rf"{fakes.NAME}.*the cell tagged found is code"):
        regenerate(root, DEMONSTRATED)
    assert notebook.read_text() == text


def test_a_preset_that_is_not_published_is_refused(root: Path) -> None:
    pilot = fakes.run_record(root / "r", preset="pilot")
    with pytest.raises(ValueError, match=r"presets = \['pilot'\], expected records of verdict"):
        publish([pilot], root)
    assert not (root / "records").exists()


def test_of_a_quick_run_nothing_is_published_but_its_time(root: Path) -> None:
    publish([fakes.run_record(root / "r", preset="quick")], root, DEMONSTRATED)
    assert [path.name for path in (root / "records").iterdir()] == ["times.toml"]


def test_another_setting_than_the_registered_one_is_refused(root: Path) -> None:
    record = fakes.run_record(root / "r")
    with pytest.raises(ValueError, match=r"\['lr'\] not as the verdict preset has them"):
        publish([replace(record, params=record.params | {"lr": 0.2})], root, DEMONSTRATED)
    assert not (root / "records").exists()


def test_parts_with_other_choices_or_the_same_seeds_are_refused(root: Path) -> None:
    one, two = (fakes.run_record(root / "r", first_seed=s, n=4) for s in (2000, 2004))
    with pytest.raises(ValueError, match="differ in code or in frozen choices"):
        publish([one, replace(two, choices={"clip 1": {"lr": 1.0}})], root, DEMONSTRATED)
    with pytest.raises(ValueError, match="seed 2000"):
        publish([one, one], root, DEMONSTRATED)


@pytest.mark.parametrize("text", ["no markers", README + README, README.replace("begin", "x")])
def test_a_readme_without_one_pair_of_markers_is_refused(root: Path, text: str) -> None:
    (root / "README.md").write_text(text, newline="")
    with pytest.raises(ValueError, match="expected one <!-- answers:begin -->"):
        regenerate(root, DEMONSTRATED)
    with pytest.raises(ValueError, match="expected one <!-- answers:begin -->"):
        publish([fakes.run_record(root / "r")], root, DEMONSTRATED)
    assert not (root / "records").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "{}", '{"question": 1}'])
def test_a_damaged_published_record_is_named(root: Path, text: str) -> None:
    publish([fakes.run_record(root / "r")], root, DEMONSTRATED)
    (root / "records" / f"{fakes.NAME}.json").write_text(text)
    with pytest.raises(ValueError, match=f"damaged record .*{fakes.NAME}: "):
        regenerate(root, DEMONSTRATED)


def test_the_pages_of_tables_that_a_project_has_are_filled(root: Path) -> None:
    names = ("answers", "which_method", "methods", "data", "records")
    pages = {name: root / "docs" / f"{name}.md" for name in names}
    pages["methods"].parent.mkdir()
    (root / "notebooks" / "answers.toml").write_text(ANSWERS)
    for name, page in pages.items():
        page.write_text(f"By hand.\n<!-- {name}:begin -->\n<!-- {name}:end -->\n")
    publish([fakes.run_record(root / "r")], root, DEMONSTRATED)
    told = {name: page.read_text() for name, page in pages.items()}
    assert all(text.startswith("By hand.\n") for text in told.values())
    assert "1. **Is it so?** It is." in told["answers"]
    assert "    * Notebooks: [01](../notebooks/01_toy.ipynb)" in told["answers"]
    assert "| A loss | Clip |  |  |" in told["which_method"]
    assert "| `autoclip` |" in told["methods"]
    assert "| wikipedia | exllamav2 0.3.2 | CC BY-SA" in told["data"]
    assert f"| [{fakes.NAME}](../notebooks/{fakes.NAME}.ipynb) | measured with" in told["records"]
    pages["methods"].write_text("no place for them")
    with pytest.raises(ValueError, match=r"methods\.md: expected one <!-- methods:begin -->"):
        regenerate(root, DEMONSTRATED)


def test_how_small_the_models_are_is_of_record(root: Path) -> None:
    (root / "records").mkdir()
    assert sizes(root) == ""
    rows = [{"arm": f"size {n}", "seed": 0, "parameters": n} for n in (None, 7000, 30, 500)]
    (root / "records" / "19_scale.csv").write_text(write_rows(rows))
    assert "sizes are compared, 30 to 7,000 parameters ([19](../notebooks/" in sizes(root, "../")
    published = (ROOT / "README.md").read_text("utf-8").partition("answers:end")[0]
    assert sizes(ROOT) in published.partition("answers:begin")[2]


def test_without_records_the_files_say_so(root: Path) -> None:
    regenerate(root, DEMONSTRATED)
    assert "None yet." in (root / "README.md").read_text()
    assert "None yet." in (root / "RESULTS.md").read_text()


def test_results_are_not_written_without_the_ledger_that_they_are_judged_by(root: Path) -> None:
    with pytest.raises(ValueError, match="no ledger of claims"):
        regenerate(root)
    assert not (root / "RESULTS.md").exists()


def test_the_published_files_of_this_project_are_in_step() -> None:
    assert stale(ROOT) == []  # else: python -m cliplab.lab.publish


def test_a_markdown_table_keeps_its_columns() -> None:
    lines = markdown([{"a": "x | y\nz", "b": None}, {"b": "<i>", "c": 3}]).splitlines()
    assert lines[0] == "| a | b | c |"
    assert lines[2:] == ["| x \\| y z |  | – |", "| – | &lt;i> | 3 |"]
