"""Why a record is stale, and what a published one says of itself."""

from pathlib import Path

import pytest

from cliplab.lab.attest.carried import accepted, changes, sentence, state
from cliplab.lab.runs.keys import KIND, closure, made_of
from cliplab.lab.runs.staleness import other_parameters, why_stale

MODULES = {
    "__init__.py": "",
    "maths.py": "def f(): return 1\ndef g(): return 2",
    "lab/__init__.py": "",
    "lab/data/__init__.py": "",
    "lab/data/corpus.py": "SHA256 = 'abc'",
}
CELLS = ("import cliplab.maths, cliplab.lab.data.corpus", "x = 1", "y = 2")


@pytest.fixture
def why(tmp_path: Path, make_notebook):
    """What ``why_stale`` says of a record that was made before something changed."""
    package, path = tmp_path / "cliplab", tmp_path / "a.ipynb"

    def write(modules: dict[str, str]) -> None:
        for name, source in modules.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(source)

    write(MODULES)
    before = closure(make_notebook(path, *CELLS), package)
    made = {"key": KIND, **made_of(before)}

    def after(*cells: str, made=made, provenance=None, **modules: str) -> list[str]:
        write({name.replace("__", "/") + ".py": source for name, source in modules.items()})
        now = closure(make_notebook(path, *(cells or CELLS)), package)
        return why_stale(now, made, provenance or {}, before.key)

    return after


def test_the_cell_the_definition_or_the_data_that_changed_is_named(why):
    assert why() == []
    assert why(maths="def f(): return 1  # a\ndef g(): return 2") == []
    assert why(*CELLS[:2], "y = 3") == ["cell 3"]
    assert why(*CELLS[:2]) == ["1 cells are gone"]
    assert why(*CELLS[::-1]) == ["the order of the cells"]
    assert why(maths="def f(): return 3\ndef h(): return 4") == [
        "definition cliplab.maths:f changed",
        "definition cliplab.maths:h new",
        "definition cliplab.maths:g gone",
    ]
    assert why(maths=MODULES["maths.py"], lab__data__corpus="SHA256 = 'abd'") == [
        "data cliplab.lab.data.corpus:SHA256 changed"
    ]


def test_what_moved_is_not_named(why):
    moved = {
        "lines": "def f(): return 1\ndef g(): return 9",
        "maths": "from cliplab.lines import f",
    }
    assert why(**moved) == [
        "definition cliplab.lines:g new",
        "definition cliplab.maths:g gone",
    ]


def test_an_older_kind_of_key_and_other_versions_are_reasons(why):
    assert why("x = 2", made={}) == ["measured by code before key 2"]
    old = {"versions": {"python": "3.2.1"}}
    (reason,) = why(provenance=old)
    assert reason.startswith("version python: 3.2, now 3.")
    numpy = ("import numpy", *CELLS)
    reasons = why(*numpy, provenance={"versions": {"numpy": "0.1"}})
    assert reasons[0] == "cell 1"
    assert reasons[1].startswith("version numpy: 0.1, now ")


def test_parameters_that_the_preset_has_otherwise_are_named():
    assert other_parameters({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "d": 4}) == [
        "parameter b: 2, the preset has 3",
        "parameter d: None, the preset has 4",
        "parameter c: 3, the preset has None",
    ]


ABOUT = {
    "code_key": "a",
    "provenance": {"git_sha": "1" * 40, "finished": "2026-01-01"},
    "carried": {
        "code_key": "b",
        "to": "2" * 40,
        "date": "2026-02-02",
        "updates": 20,
        "n_rows": 12,
        "changed": ["cliplab.a:f", "cliplab.a:g", "cliplab.b:h"],
        "accepted": [],
    },
}


def test_a_published_record_says_what_was_measured_and_what_was_compared():
    assert [state(ABOUT, key) for key in "abc"] == ["current", "carried", "superseded"]
    assert sentence(ABOUT) == (
        f"measured with the code of `{'1' * 12}` (2026-01-01); the code of `{'2' * 12}` "
        "(2026-02-02) gave the same 12 rows in a short run of 20 updates"
    )
    assert changes(ABOUT) == "3 in 2 modules, listed in records/"
    pending = {**ABOUT, "carried": None, "pending": "a fault in f"}
    assert sentence(pending).endswith("; **superseded, run pending**: a fault in f")
    assert changes(pending) == ""


def test_what_is_accepted_stands_once_with_its_notebooks():
    entry = {"pattern": "cliplab.a:*", "why": "no arm", "names": ["cliplab.a:f"]}
    other = {**entry, "names": ["cliplab.a:g"]}
    abouts = {n: {"carried": {"accepted": [e]}} for n, e in (("01_x", entry), ("02_y", other))}
    assert accepted(abouts | {"03_z": {}}) == [
        {
            "Accepted": "cliplab.a:*",
            "Names": "cliplab.a:f, cliplab.a:g",
            "In": "01, 02",
            "Why": "no arm",
        }
    ]
