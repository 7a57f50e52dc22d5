"""Whose folder a report goes to: what cliplab did not write is neither replaced nor removed."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from recording import LIGHT

from cliplab.cli.main import main
from cliplab.lab.claims import Ledger
from cliplab.lab.notebook.presets import MARK
from cliplab.lab.report.folder import claim_folder, is_ours
from cliplab.lab.report.site import write_report
from cliplab.lab.runs.files import leftovers, set_aside, write_atomic

OLDER = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>cliplab: claims about gradient clipping</title>
"""  # noqa: E501


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "name", ["index.html", "pages/mine.html", "notes.md", ".hidden", "claims.json", "pages/a/b"]
)
def test_a_folder_with_files_of_others_is_refused_and_stays(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(ValueError, match=r"--reports .* holds .*, which cliplab did not write"):
        claim_folder(tmp_path)
    assert content(tmp_path) == {name: b"mine"}


def test_a_folder_that_cliplab_made_for_something_else_is_refused(tmp_path):
    (tmp_path / MARK).write_text("notebooks of cliplab 1.0\n")
    with pytest.raises(ValueError, match=r"holds \.cliplab, which"):
        claim_folder(tmp_path)


@pytest.mark.parametrize("command", [["run"], ["run", "--kernel", "stock"], ["report"]])
def test_it_is_refused_before_any_run_and_in_one_line(
    tmp_path, make_notebook, monkeypatch, capsys, command
):
    make_notebook(tmp_path / "notebooks" / "01_a.ipynb", f"{LIGHT}\nraise SystemError")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "pages").mkdir(parents=True)
    for name in ("docs/index.html", "docs/pages/mine.html"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "results").mkdir()
    before = content(tmp_path)
    if command == ["report"]:
        (tmp_path / "results" / "last_run.json").write_text("[]")
        before = content(tmp_path)
    assert main([*command, "--reports", "docs"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert content(tmp_path) == before
    assert main([*command, "--reports", "results/../results"]) == 2
    assert "is the folder of the results" in capsys.readouterr().err
    assert main([*command, "--reports", "."]) == 2
    assert content(tmp_path) == before


def test_what_others_put_into_a_report_stays_and_what_is_out_of_date_goes(tmp_path):
    write_report([], [], Ledger(), tmp_path)
    pages = tmp_path / "pages"
    made = (tmp_path / "index.html").read_text()
    for name in ("stale.html", "also-stale.html"):
        (pages / name).write_text(made.replace("cliplab: index.html", f"cliplab: {name}"))
    (pages / "kept.html").write_text((pages / "stale.html").read_text())  # a renamed copy
    (pages / "mine.html").write_text("mine")
    (pages / "mine.css").write_text("mine")
    (tmp_path / "notes.md").write_text("mine")
    (pages / "a-folder.html").mkdir()
    write_report([], [], Ledger(), tmp_path)
    assert {path.name for path in pages.iterdir()} == {
        "kept.html", "mine.html", "mine.css", "a-folder.html"
    }  # fmt: skip
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("name", ["index.html", "claims.json"])
def test_a_file_in_the_place_of_one_of_the_report_is_not_overwritten(tmp_path, name):
    claim_folder(tmp_path)
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="was not written by cliplab: move it"):
        claim_folder(tmp_path)
    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_an_older_report_is_taken_over_and_its_pages_are_dropped(tmp_path):
    (tmp_path / "pages").mkdir()
    for name in ("index.html", "pages/01_a-quick-12345678.html"):
        (tmp_path / name).write_text(OLDER)
    (tmp_path / "claims.json").write_text("[]\n")
    claim_folder(tmp_path)
    assert (tmp_path / MARK).exists()
    assert is_ours(write_report([], [], Ledger(), tmp_path)[0])
    assert list((tmp_path / "pages").iterdir()) == []


def test_a_folder_that_is_empty_or_not_there_is_marked_and_a_file_is_refused(tmp_path):
    claim_folder(tmp_path / "a" / "b")
    assert content(tmp_path / "a") == {f"b/{MARK}": b""}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is not a folder"):
        claim_folder(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot write in --reports"):
        claim_folder(tmp_path / "file" / "below")


def test_two_batches_may_report_into_one_folder_at_once(tmp_path):
    def report(number: int) -> None:
        for _ in range(20):
            write_report([], [], Ledger(), tmp_path / "reports")
            (tmp_path / "reports" / "pages" / f"{number}.html").write_text("mine")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(report, range(4)))
    assert len(content(tmp_path / "reports" / "pages")) == 4


def test_leftovers_are_only_what_a_killed_write_leaves(tmp_path):
    others = [".a.b.c", ".notes.1.txt", "x.1.12345678", ".git.12.1234567g", ".x.12345678"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".record.json.123.0a1b2c3d").touch()
    assert [path.name for path in leftovers(tmp_path)] == [".record.json.123.0a1b2c3d"]


def test_what_is_set_aside_replaces_nothing(tmp_path):
    path = tmp_path / "record.json"
    for text in ("one", "two", "three"):
        write_atomic(path, text)
        set_aside(path)
    assert content(tmp_path) == {
        "record.json.damaged": b"one",
        "record.json.damaged1": b"two",
        "record.json.damaged2": b"three",
    }
