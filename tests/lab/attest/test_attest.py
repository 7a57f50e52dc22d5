"""Carrying records over changes, on a package of three files in a repository of its own."""

import json

import pytest
from attesting import CELL, MATHS

from cliplab.lab.attest.attest import Acceptance, Attest, attest
from cliplab.lab.attest.checkout import git


def test_a_changed_form_of_the_same_numbers_is_carried_from_the_measured_commit(tiny):
    measured = tiny.about["provenance"]["git_sha"]
    tiny.replace("maths.py", "return SCALE * x", "y = x\n    return y * SCALE")
    assert tiny.attest().startswith("carried: 4 rows equal")
    carried = tiny.about["carried"]
    assert carried["code_key"] == tiny.key != tiny.about["code_key"]
    assert carried["from"] == measured
    assert carried["to"] == git(tiny.root, "rev-parse", "HEAD") != measured
    assert carried["changed"] == ["cliplab.maths:scaled"]
    assert (carried["n_rows"], carried["updates"], carried["accepted"]) == (4, 3, [])
    assert tiny.attest().startswith("current: carried from")

    tiny.replace("maths.py", "slope = 2.0", "slope = 4.0 / 2")  # always from the measured commit
    assert tiny.attest().startswith("carried")
    assert tiny.about["carried"]["from"] == measured
    assert tiny.about["carried"]["changed"] == ["cliplab.maths:Line", "cliplab.maths:scaled"]
    assert git(tiny.root, "worktree", "list").count("\n") == 0


def test_a_moved_number_is_refused_with_arm_seed_and_column(tiny):
    tiny.replace("maths.py", "SCALE = 0.5", "SCALE = 0.25")
    with pytest.raises(ValueError, match=r"arm 'a', seed 1, loss: 1\.0 was recorded, now 0\.5"):
        tiny.attest(("*", "any reason"))
    assert "carried" not in tiny.about


def test_what_changed_and_was_not_entered_is_refused_by_name_or_accepted(tiny):
    tiny.replace("maths.py", "return x + 1", "return 1 + x")
    tiny.replace("maths.py", "return x - 1", "return -1 + x")
    with pytest.raises(ValueError, match=r"^changed, but not entered: cliplab\.maths:unused$"):
        tiny.attest(("*:Line.*", "a method"))
    tiny.attest(("*:Line.*", "a method"), ("cliplab.maths:unused", "dead"))
    assert tiny.about["carried"]["accepted"] == [
        {"pattern": "*:Line.*", "why": "a method", "names": ["cliplab.maths:Line.never"]},
        {"pattern": "cliplab.maths:unused", "why": "dead", "names": ["cliplab.maths:unused"]},
    ]


def test_a_function_that_is_gone_must_have_been_entered_too(tiny):
    source = (tiny.package / "maths.py").read_text()
    tiny.write("maths.py", source[: source.index("def unused")])
    with pytest.raises(ValueError, match=r"not entered: cliplab\.maths:unused"):
        tiny.attest()
    assert tiny.attest(("*unused", "it was dead"))


def test_columns_are_new_gone_or_renamed_in_meaning(tiny):
    tiny.cells(CELL.replace('"n": seed', '"m": seed'))
    with pytest.raises(ValueError, match=r"^n is not recorded any more$"):
        tiny.attest()
    tiny.attest(("column:n", "it is m now"))
    assert tiny.about["carried"]["new_columns"] == ["m"]
    assert tiny.about["carried"]["accepted"][0]["names"] == ["column:n"]
    tiny.cells(CELL.replace('"n": seed', '"n": float(seed)'))
    with pytest.raises(ValueError, match=r"seed 0, n: 0 was recorded, now 0\.0"):
        tiny.attest()


def test_functions_of_cells_must_be_entered_too(tiny):
    tiny.cells("def used():\n    return 1\ndef late():\n    return 2\nused()", CELL)
    with pytest.raises(ValueError, match=r"^changed, but not entered: cells:late$"):
        tiny.attest()


def test_a_notebook_that_draws_new_numbers_each_time_is_not_attestable(tiny):
    tiny.cells("import os", CELL.replace('"n": seed', '"n": os.urandom(8).hex()'))
    tiny.measure()
    tiny.replace("maths.py", "return SCALE * x", "return x * SCALE")
    with pytest.raises(ValueError, match="not deterministic: arm 'a', seed 0, n"):
        tiny.attest()


@pytest.mark.parametrize(
    ("provenance", "why"),
    [
        ({"git_dirty": True}, "code that was not committed"),
        ({"hardware": {"device": "NVIDIA"}}, "measured on NVIDIA, this is cpu"),
        ({"versions": {"python": "3.2.1"}}, "python 3.2 measured"),
        ({"git_sha": "0" * 40}, "git worktree"),
    ],
)
def test_what_cannot_be_measured_again_is_not_attestable(tiny, provenance, why):
    tiny.measure(**provenance)
    tiny.replace("maths.py", "return SCALE * x", "return x * SCALE")
    with pytest.raises(ValueError, match=why):
        tiny.attest()


def test_the_measured_commit_must_give_the_records_key(tiny):
    about = tiny.about | {"code_key": "another"}
    (tiny.records / "00_tiny.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match="does not give the record's key"):
        tiny.attest()


def test_a_parameter_that_the_measured_notebook_lacks_is_refused_by_name(tiny):
    tiny.make_notebook(tiny.notebook, CELL, parameters="updates: int = 9\nwidth: int = 2")
    with pytest.raises(ValueError, match="no parameter width"):
        tiny.attest()


def test_a_comment_and_a_moved_file_change_no_key_and_need_no_run(tiny):
    tiny.measure()
    about = tiny.about | {"code_key": tiny.key}
    (tiny.records / "00_tiny.json").write_text(json.dumps(about))
    tiny.replace("maths.py", "# a comment", "# another comment")
    tiny.write("room/__init__.py", "from cliplab.room.lines import Line, scaled")
    (tiny.package / "maths.py").rename(tiny.package / "room" / "lines.py")
    tiny.cells(CELL.replace("cliplab.maths", "cliplab.room"))
    assert tiny.attest() == "current: measured with today's code"


def test_the_short_run_must_answer_every_claim(tiny):
    claim = '[same]\nkind = "identity"\nnotebook = "00_tiny"\nstatement = "-"\nsource = "-"\n'
    claim += 'metric = "same"\narms = ["a", "norm 0.1"]\n'
    (tiny.root / "notebooks" / "claims.toml").write_text(claim)
    tiny.replace("maths.py", "return SCALE * x", "return x * SCALE")
    why = r"^the fingerprint does not answer: claim same: no rows of 'norm 0\.1'$"
    with pytest.raises(ValueError, match=why):
        tiny.attest()


def test_a_replication_is_carried_as_the_record_is(tiny):
    again = tiny.records / "00_tiny.replica.json"
    again.write_text(json.dumps(tiny.about))
    (tiny.records / "00_tiny.registration.json").write_text("{}")
    tiny.replace("maths.py", "return SCALE * x", "return x * SCALE")
    tiny.commit()
    said: list[str] = []
    found = attest([tiny.notebook], tiny.records, tiny.root, [], said.append)
    assert list(found) == ["00_tiny", "00_tiny.replica"]
    assert all(str(outcome).startswith("carried: 4 rows equal") for outcome in found.values())
    assert json.loads(again.read_text())["carried"]["code_key"] == tiny.key
    assert f"00_tiny.replica: {found['00_tiny.replica']}" in said


def test_tracing_changes_nothing_and_sees_threads_and_nested_functions(tiny):
    """A function that only a thread calls, and one whose change is inside an inner function."""
    threaded = "\nimport threading\n\n\ndef late(out):\n    out.append(1)\n\n\ndef outer():\n"
    threaded += "    def inner():\n        return 2\n    return inner\n"
    tiny.write("maths.py", MATHS + threaded)
    use = "from cliplab.maths import late, outer\nimport threading\nout = []\nouter()\n"
    use += "t = threading.Thread(target=late, args=(out,))\nt.start()\nt.join()"
    tiny.cells(use, CELL)
    tiny.measure()
    tiny.replace("maths.py", "out.append(1)", "out.append(3)")
    tiny.replace("maths.py", "return 2", "return 4")
    tiny.attest()
    assert tiny.about["carried"]["changed"] == ["cliplab.maths:late", "cliplab.maths:outer"]


def test_a_checkout_with_changes_attests_nothing(tiny):
    tiny.replace("maths.py", "return SCALE * x", "return x * SCALE")
    with pytest.raises(ValueError, match=r"not committed:\n.*maths\.py"):
        Attest(tiny.root, tiny.records)


def test_each_notebook_has_an_outcome_and_an_idle_acceptance_is_an_error(tiny):
    said: list[str] = []
    other = tiny.notebook.with_name("01_other.ipynb")
    tiny.make_notebook(other, CELL)
    (tiny.records / "01_other.json").write_text(json.dumps(tiny.about | {"code_key": "x"}))
    (tiny.records / "00_tiny.json").write_text(json.dumps(tiny.about | {"code_key": tiny.key}))
    tiny.commit()
    found = attest([tiny.notebook, other], tiny.records, tiny.root, [], said.append)
    assert found["00_tiny"] == "current: measured with today's code"
    assert "no 01_other.ipynb at the measured commit" in str(found["01_other"])
    assert said == [f"{name}: {outcome}" for name, outcome in found.items()]
    with pytest.raises(ValueError, match=r"--accept y:\*: nothing is called that"):
        attest([tiny.notebook], tiny.records, tiny.root, [Acceptance("y:*", "")], said.append)
