"""Files that a notebook reads: in its key where it declares them, named where it does not."""

import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cliplab.lab.runs import reads
from cliplab.lab.runs.keys import KIND, closure, made_of
from cliplab.lab.runs.reads import undeclared
from cliplab.lab.runs.staleness import why_stale

FILES = ("data.csv", "more/a.csv", "more/b.csv", "more/deep/c.csv", "more/.hidden", "a[1].csv")


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "nb"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "above.csv").write_text("above")
    return folder


@pytest.fixture
def code(folder, make_notebook):
    def code(declared: object, name: str = "a.ipynb"):
        path = make_notebook(folder / name, "x = 1")
        notebook = json.loads(path.read_text())
        notebook["metadata"]["cliplab"] = {"reads": declared}
        path.write_text(json.dumps(notebook))
        return closure(path)

    return code


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ([], []),
        (["data.csv"], ["data.csv"]),
        (["./data.csv", "data.csv", "*.csv"], ["a[1].csv", "data.csv"]),
        (["a[1].csv"], ["a[1].csv"]),
        (["more/*.csv"], ["more/a.csv", "more/b.csv"]),
        (["more/**/*.csv"], ["more/a.csv", "more/b.csv", "more/deep/c.csv"]),
        (["more"], ["more/a.csv", "more/b.csv", "more/deep/c.csv"]),
        (["more/.hidden"], ["more/.hidden"]),
        (["../above.csv"], ["../above.csv"]),
    ],
)
def test_declared_files_enter_the_key_by_content(declared, expected, code, folder):
    before = code(declared)
    assert list(before.reads) == expected
    for path in [folder / name for name in FILES]:
        text = path.read_text()
        path.write_text(text.upper())
        after = code(declared)
        changed = path.relative_to(folder).as_posix() in expected
        assert (after.key != before.key) == changed
        reasons = why_stale(after, {"key": KIND, **made_of(before)}, {}, before.key)
        assert reasons == [f"data {path.relative_to(folder)} changed"] * changed
        path.write_text(text)


def test_what_may_be_read_enters_the_key_where_it_is_there(code, folder):
    code([])
    path = folder / "a.ipynb"
    notebook = json.loads(path.read_text())
    notebook["metadata"]["cliplab"] = {"may_read": ["data.csv", "none.csv", "../none/*.csv"]}
    path.write_text(json.dumps(notebook))
    before = closure(path)
    assert list(before.reads) == ["data.csv"]
    (folder / "none.csv").write_text("there now")
    after = closure(path)
    assert after.key != before.key
    assert why_stale(after, {"key": KIND, **made_of(before)}, {}, before.key) == [
        "data none.csv new"
    ]


def test_files_that_come_and_go_are_named(code, folder):
    before = code(["more"])
    (folder / "more" / "a.csv").rename(folder / "more" / "z.csv")
    reasons = why_stale(code(["more"]), {"key": KIND, **made_of(before)}, {}, before.key)
    assert reasons == ["data more/a.csv gone", "data more/z.csv new"]
    assert "reads" not in made_of(code(None))


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        (["no.csv"], "'no.csv' names no file in "),
        (["data.csv", "*.txt"], r"'\*.txt' names no file in "),
        (["empty"], "'empty' names no file in "),
        (["pipe"], "'pipe' names no file in "),
        (["a\0b"], "names no file in "),
        (["x" * 5000], "names no file in "),
        ("data.csv", "'data.csv' is not a list of file names"),
        ({"data.csv": 1}, "is not a list of file names"),
        ([1], r"\[1\] is not a list of file names"),
        ([""], "is not a list of file names"),
        (0, "0 is not a list of file names"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(declared, why, code, folder):
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ValueError, match=f"a.ipynb: metadata.cliplab.reads: .*{why}") as refused:
        code(declared)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("metadata", [{}, {"cliplab": None}, {"cliplab": ["reads"]}])
def test_other_metadata_declares_nothing(metadata, folder, make_notebook):
    path = make_notebook(folder / "a.ipynb", "x = 1")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metadata": metadata}))
    assert closure(path).reads == {}


def test_a_linked_folder_is_read_and_a_circle_of_links_ends(code, folder, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "x.csv").write_text("1")
    (folder / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(folder)
    assert "link/x.csv" in code(["link"]).reads


def test_equal_notebooks_that_read_different_data_have_different_keys(code, folder, tmp_path):
    first = code(["data.csv"])
    other = shutil.copytree(folder, tmp_path / "other")
    assert closure(other / "a.ipynb").key == first.key
    (other / "data.csv").write_text("other")
    assert closure(other / "a.ipynb").key != first.key


def test_a_file_is_hashed_once_and_again_when_it_changes(code, folder, monkeypatch):
    monkeypatch.setattr(reads, "SETTLED_NS", -1)  # as if it had been there for long
    asked = []
    real = reads.hashlib.file_digest
    monkeypatch.setattr(reads.hashlib, "file_digest", lambda *a: asked.append(a) or real(*a))
    keys = [code(["more"]).key for _ in range(5)]
    assert len(asked) == 3
    (folder / "more" / "a.csv").write_text("longer than before")
    assert code(["more"]).key != keys[0]
    assert len(asked) == 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.binary(max_size=8), after=st.binary(max_size=8))
def test_any_edit_of_a_declared_file_changes_the_key(before, after, code, folder):
    keys = []
    for content in (before, after):
        (folder / "data.csv").write_bytes(content)
        keys.append(code(["*.csv"]).key)
    assert (keys[0] == keys[1]) == (before == after)


def test_files_that_were_opened_and_are_not_in_the_key(code, folder, tmp_path):
    (folder / "mod.py").write_text("")
    notebook = code(["data.csv"])
    opened = tmp_path / "opened"
    assert undeclared(opened, notebook) == []
    paths = [
        *("data.csv", "more/a.csv", "__pycache__/mod.cpython-312.pyc", ".hidden", ".git/config"),
        *("claims.toml", "x/.ipynb_checkpoints/a.csv", "a\nb.csv", "\udcff.csv"),
    ]
    entries = [os.fsencode(folder / path) + b"\0" for path in paths]
    opened.write_bytes(b"".join([*entries, os.fsencode(folder / "cut off")]))
    assert undeclared(opened, notebook) == ["a\\nb.csv", "mod.py", "more/a.csv", "\\udcff.csv"]


def test_what_a_notebook_ignores_is_not_warned_of_and_in_no_key(folder, make_notebook, tmp_path):
    path, opened = make_notebook(folder / "a.ipynb", "x = 1"), tmp_path / "opened"
    files = ("data.csv", "more/a.csv", "more/deep/c.csv")
    opened.write_bytes(b"".join(os.fsencode(folder / name) + b"\0" for name in files))
    plain = closure(path)
    assert undeclared(opened, plain) == [*files]
    notebook = json.loads(path.read_text())
    notebook["metadata"]["cliplab"] = {"ignores": ["more/*"]}
    path.write_text(json.dumps(notebook))
    assert undeclared(opened, closure(path)) == ["data.csv"]
    assert closure(path).key == plain.key
    notebook["metadata"]["cliplab"] = {"ignores": "more/*"}
    path.write_text(json.dumps(notebook))
    with pytest.raises(ValueError, match=r"metadata.cliplab.ignores: 'more/\*' is not a list"):
        closure(path)
