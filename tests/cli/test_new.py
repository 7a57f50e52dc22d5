"""``cliplab new`` and ``race`` refused; folders in which they find their notebooks."""

import json
import sys
from pathlib import Path

import pytest
from commanding import status_of
from racing import write_toy

from cliplab.lab.claims import load_ledger
from cliplab.lab.notebook.presets import read_presets


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_study_has_a_notebook_a_claim_and_presets_of_its_name(here, capsys):
    assert status_of("new first") == status_of("new deep/second.ipynb") == 0
    out = capsys.readouterr().out
    assert "next: cliplab run first.ipynb --preset smoke\n" in out
    assert "next: cliplab run deep/second.ipynb --preset smoke --notebooks deep\n" in out
    for path in (here / "first.ipynb", here / "deep" / "second.ipynb"):
        ledger = load_ledger(path.parent)
        assert list(ledger.claims) == [path.stem]
        text = "".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"])
        assert f'judge("{path.stem}", rows, study)' in text
        assert "my-study" not in text
        assert read_presets(path).keys() == {"quick", "smoke", "pilot", "verdict"}


def test_another_study_is_added_and_nothing_is_overwritten(here, capsys):
    assert status_of("new first") == 0
    own = Path("claims.toml").read_text()
    assert status_of("new second") == 0
    assert Path("claims.toml").read_text().startswith(own)
    assert load_ledger().family == 2
    before = {path: path.read_bytes() for path in here.iterdir()}
    capsys.readouterr()
    assert status_of("new first") == 2
    assert "first.ipynb is there already" in capsys.readouterr().err
    Path("first.ipynb").unlink()
    assert status_of("new first") == 2
    assert "claims.toml has a claim of first already" in capsys.readouterr().err
    del before[here / "first.ipynb"]
    assert {path: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize(
    ("claims", "name", "complaint"),
    [
        ("", "a.b", "'a.b', expected a name of letters"),
        ("", "family", "'family', expected a name"),
        ("", "-x", "required: NAME"),
        ("", "my+study.py", "expected a name of letters (a to z), digits, - and _, as my-study"),
        ("", "claims.toml/x", "claims.toml is not a folder"),
        ("", "claims.toml/deep/x.py", "claims.toml is not a folder"),
        ("family = 1\n", "ok", ""),
        ("family = 0\n", "ok", "family = 0, expected a whole number"),
        ("[a]\nkind = 1\n", "ok", "claim a: kind = 1"),
        ("[[", "ok", "claims.toml: "),
    ],
)
def test_a_folder_that_takes_no_study_is_left_as_it_is(claims, name, complaint, here, capsys):
    Path("claims.toml").write_text(claims)
    assert status_of(f"new {name}") == (2 if complaint else 0)
    assert complaint in capsys.readouterr().err
    assert [path.name for path in here.iterdir()] == ["claims.toml"] or not complaint


def test_a_family_that_is_full_is_to_be_raised_first(here, capsys):
    assert status_of("new first") == 0
    text = Path("claims.toml").read_text()
    Path("claims.toml").write_text(f"family = 1\n{text}")
    assert status_of("new second") == 2
    assert "family = 1, raise it" in capsys.readouterr().err


def test_a_folder_with_claims_is_that_of_its_notebooks(here, capsys):
    assert status_of("list") == 2
    assert "no notebooks in notebooks" in capsys.readouterr().err
    assert status_of("new first") == 0
    assert status_of("list") == 0
    assert "first: Noisy examples: does clipping the norm help here?" in capsys.readouterr().out
    Path("notebooks").mkdir()
    assert status_of("list") == 2
    capsys.readouterr()
    assert status_of("new second") == 0
    assert "--preset smoke --notebooks .\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "required: FILE.py:FUNCTION"),
        ("train.py", "'train.py', expected a file, a colon and its function"),
        ("none.py:train", "no file none.py"),
        ("toy_refused.py:fit", "has no function 'fit', only train"),
        ("toy_broken.py:train", "cannot be imported: ZeroDivisionError: division by zero (line 1"),
        ("toy_ends.py:train", "toy_ends.py cannot be imported: SystemExit: 0 (line 3"),
        ("toy_refused.py:train --lr 1:0.1", "'1:0.1' is not like 0.001:1"),
        ("toy_refused.py:train --threshold 3", "'3' is not like 0.001:1"),
        ("toy_refused.py:train --margin 0", "'0' is not a positive number"),
        ("toy_refused.py:train --chance inf", "'inf' is not a finite number"),
        ("toy_refused.py:train --at-once 64", "'64' is more than 63"),
        ("toy_refused.py:train --repeat -1", "'-1' is not a whole number"),
        ("toy_refused.py:train --minutes 1e-9", "the smallest race (tiny) has 16 of them: --min"),
    ],
)
def test_a_race_that_cannot_be_is_one_line(words, complaint, here, capsys, monkeypatch):
    for module in ("toy_refused", "beside"):  # of another test's folder
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_toy(here, name="toy_refused.py").with_name("toy_broken.py").write_text("1 / 0\n")
    (here / "toy_ends.py").write_text("import sys\n\nsys.exit(0)\n")
    assert status_of(f"race {words}") == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("cliplab: error: ")
    assert complaint in err


def test_what_a_race_found_is_printed_before_its_page_is_written(here, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_toy(here, name="toy_unwritten.py")
    (here / "race" / "toy_unwritten-train" / "race.html").mkdir(parents=True)
    assert status_of("race toy_unwritten.py:train --minutes 600 --lr 1e-4:10") == 1
    assert "\nFailures: " in capsys.readouterr().out
