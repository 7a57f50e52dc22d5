"""What is published of registered studies: refused where it deviates, told word for word."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from studying import as_toml, comparison, study, surface

from cliplab.lab.claims import Outcome, Verdict
from cliplab.lab.claims.ledger import load_ledger
from cliplab.lab.notebook.presets import preset_params
from cliplab.lab.notebook.registrations import registration_path, sealed
from cliplab.lab.report.outcome import judge_records
from cliplab.lab.report.publish import publish, regenerate, stale
from cliplab.lab.report.published import holds
from cliplab.lab.runs.keys import code_key
from cliplab.lab.runs.record import RunRecord
from cliplab.lab.stats.paired import Estimate

README = "".join(f"<!-- {n}:begin -->\n<!-- {n}:end -->\n" for n in ("answers", "computing"))
WAYS = {"good": 0.3, "same": 0.0, "odd": 0.09}
ABOUT = {
    "ways": {"none": ["lr"]} | {way: ["lr", "threshold"] for way in WAYS},
    "versus": [(way, "none") for way in WAYS],
}
STUDY = study(surface(**WAYS), **ABOUT)
CLAIMS = [
    comparison(id=f"{way}_clip", first=way, question=f"Does {way} clipping help?") for way in WAYS
]
LATER = comparison(id="later", notebook="02_later", question="Does it help later?")
ITSELF = comparison(
    id="itself", kind="a/a", first="same", question="Is a way told from itself?",
    source="", literature="", counter="",
)  # fmt: skip
POWER = {"two margins: harms": 0.8, "equal: no matter": 0.791}


@pytest.fixture(scope="module")
def rows():
    return {seed: STUDY.run("full", seed) for seed in (10**6, 10**7)}


@pytest.fixture
def root(tmp_path, make_notebook):
    (tmp_path / "README.md").write_text(README)
    notebook = make_notebook(
        tmp_path / "notebooks" / "01_toy.ipynb", "x = 1", parameters="size: str = 'small'"
    )
    make_notebook(tmp_path / "notebooks" / "02_later.ipynb", "x = 1")
    notebook.with_name("presets.toml").write_text("[01_toy.verdict]\nsize = 'full'\n")
    notebook.with_name("claims.toml").write_text(as_toml(*CLAIMS, ITSELF, LATER, family=25))
    return tmp_path


def register(root, **changes):
    """A registration of the notebook, as it is; its seeds are those of its hash."""
    notebook = root / "notebooks" / "01_toy.ipynb"
    params = preset_params(notebook, "verdict")
    params.pop("first_seed")
    ledger = load_ledger(root)
    content = {
        "notebook": "01_toy",
        "claims": {c.id: c.registered() for c in (*CLAIMS, ITSELF)},
        "family": ledger.family,
        "studies": {"toy": STUDY.about()},
        "params": params,
        "code_key": code_key(notebook),
        "power": {c.id: POWER for c in CLAIMS},
        "pilots": [],
    }
    content = json.loads(json.dumps(sealed(content | changes)))
    path = registration_path(notebook)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return content


def run(root, rows, preset="verdict", **params):
    """The run of the notebook, at the parameters of its preset."""
    notebook = root / "notebooks" / "01_toy.ipynb"
    directory = root / "results" / preset
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "notebook.ipynb").write_text(notebook.read_text())
    provenance = {"git_sha": "abc", "finished": "2030-01-01", "wall_s": 1.0}
    return RunRecord(
        "01_toy", preset, preset_params(notebook, preset) | params, "k", code_key(notebook),
        rows[10**6 if preset == "verdict" else 10**7], [], {"studies": {"toy": STUDY.about()}},
        provenance, directory,
    )  # fmt: skip


def results(root):
    return (root / "RESULTS.md").read_text()


def answer(text, question):
    """The part of RESULTS.md that answers a question."""
    part = text.split(f"\n### {question}\n\n")[1]
    return re.split(r"\n##", part)[0]


def test_without_a_registration_nothing_is_published(root, rows):
    record = run(root, rows)
    with pytest.raises(ValueError, match="01_toy is not as it was registered: not registered: `cl"):
        publish([record], root)
    assert not (root / "records").exists()
    [verdict, *_], _ = judge_records([record], root / "notebooks", load_ledger(root))
    assert verdict.outcome is Outcome.HELPS
    assert verdict.note == "not registered: `cliplab register 01_toy`"


def other_claims(root):
    claims = as_toml(replace(CLAIMS[0], margin=0.2), *CLAIMS[1:], ITSELF, LATER, family=25)
    (root / "notebooks" / "claims.toml").write_text(claims)


def other_preset(root):
    (root / "notebooks" / "presets.toml").write_text("[01_toy.verdict]\nsize = 'full32'\n")


@pytest.mark.parametrize(
    ("change", "record", "complaint"),
    [
        (other_claims, {}, r"claims good_clip margin: 0\.1 registered, 0\.2 found"),
        (other_preset, {}, "params size: full registered, full32 found"),
        (None, {"code_key": "c" * 64}, "code_key: .* registered, c.* found"),
        (None, {"choices": {"studies": {"toy": study(lost=3.0, **ABOUT).about()}}},
         r"studies toy lost: nothing registered, 3\.0 found"),
        (None, {"choices": {}}, "studies toy: .* registered, nothing found"),
        (None, {"seed": 100}, r"first_seed: \d+ registered, 100 found"),
    ],
)  # fmt: skip
def test_what_deviates_is_refused_word_for_word_and_noted(root, rows, change, record, complaint):
    register(root)
    if change:
        change(root)
    seed = {"first_seed": record.pop("seed")} if "seed" in record else {}
    found = replace(run(root, rows, **seed), **record)
    with pytest.raises(ValueError, match=f"01_toy is not as it was registered: {complaint}"):
        publish([found], root)
    assert not (root / "records" / "01_toy.json").exists()
    verdicts, _ = judge_records([found], root / "notebooks", load_ledger(root))
    assert re.search(complaint, verdicts[0].note)


def test_what_is_as_registered_is_published_with_the_hash(root, rows):
    content = register(root)
    record = run(root, rows)
    assert record.params["first_seed"] == content["first_seed"]
    publish([record], root)
    about = json.loads((root / "records" / "01_toy.json").read_text())
    assert about["registration"] == content["hash"]
    assert stale(root) == []
    verdicts, _ = judge_records([record], root / "notebooks", load_ledger(root))
    assert not any("registered" in v.note for v in verdicts)


def test_what_is_registered_and_not_measured_says_so_and_what_lacks_rows_says_which(root, rows):
    register(root)
    regenerate(root)
    good = answer(results(root), "Does good clipping help?")
    assert "* Registered, and not measured yet." in good
    assert "* Planned before the run, by what is true: equal: no matter 79 %" in good
    short = [row for row in rows[10**6] if row["way"] != "good"]
    publish([replace(run(root, rows), rows=short)], root)
    good = answer(results(root), "Does good clipping help?")
    assert "* Not run: claim good_clip: no rows of 'good' in study 'toy'." in good


def test_a_tampered_registration_publishes_nothing(root, rows):
    register(root)
    record = run(root, rows)
    path = registration_path(root / "notebooks" / "01_toy.ipynb")
    path.write_text(path.read_text().replace('"family": 25', '"family": 24'))
    with pytest.raises(ValueError, match="its content does not match its hash"):
        publish([record], root)


def test_results_answer_each_question_with_both_estimands_and_their_place(root, rows):
    register(root)
    publish([run(root, rows)], root)
    text = results(root)
    assert "counts all 25\ncomparisons" in text
    assert "| Does good clipping help? | **helps** | – |" in text
    assert "| Does same clipping help? | **no matter** | – |" in text
    assert "| Does odd clipping help? | **unclear (below margin)** | – |" in text
    assert "| Does it help later? | **not run** | – |" in text

    good = answer(text, "Does good clipping help?")
    assert good.startswith("**Helps** (good against none, `good_clip`).")
    loss = r"\* Loss: 1\.\d+ \(good\), [12]\.\d+ \(none\); difference \+0\.\d+ "
    loss += r"\[\+0\.\d+, \+0\.\d+\] nats "
    loss += r"\(0\.100 would matter; p < 0\.001; standard deviation from run to run 0\.0\d+\)\."
    assert re.search(loss, good)
    assert (
        "* Failed runs of the best configurations: 0 of 33 (good), 0 of 33 (none); difference of "
        "shares 0.0 [−7.7, +7.7] points (10 points would matter; p = 1.00)." in good
    )
    assert "* After Holm's correction p < 0.001." in good
    assert re.search(r"\* Control: .* \(none, early\) is behind good by \+0[^:]* nats\.\n", good)
    usable = r"\* Usable range of the learning rate: \d\.\d+ \(good\), 0\.\d+ \(none\) decades; "
    assert re.search(usable + r"difference \+\d", good)
    assert "* Why this margin: the spread of seeds" in good
    assert "* The literature: half a nat, table 2 (Nobody 2013)." in good
    assert "* Not to be read beyond: a larger model" in good
    chances = "equal: no matter 79 %, two margins: harms 80 %."
    assert f"* Planned before the run, by what is true: {chances}" in good
    assert "Deviates" not in text

    assert "nats: told apart, as it should be." in answer(text, "Does same clipping help?")
    odd = answer(text, "Does odd clipping help?")
    assert odd.startswith("**Unclear (below margin)**: a difference was shown, and not that it is")
    later = answer(text, "Does it help later?")
    assert "* Not registered, and not measured yet." in later
    assert "no rows" not in later
    assert "Deviates" not in later
    itself = answer(text, "Is a way told from itself?")
    assert itself.startswith("**No matter** (same against none, `itself`).")
    assert "literature" not in itself
    assert not re.search(r"\b(None|nan|inf)\b|\d\.\d{6}", text.split("## Estimates")[0])


def test_what_deviates_after_it_was_published_is_printed(root, rows):
    register(root)
    publish([run(root, rows)], root)
    other_claims(root)
    assert [path.name for path in regenerate(root)][:1] == ["RESULTS.md"]
    text = results(root)
    assert "| Does good clipping help? | **helps**, deviates |" in text
    assert (
        "* **Deviates from what was registered**: claims good_clip margin: 0.1 registered, 0.2 "
        "found." in answer(text, "Does good clipping help?")
    )
    assert "Deviates" not in answer(text, "Does same clipping help?")

    smaller = as_toml(*CLAIMS, ITSELF, LATER, family=4)
    (root / "notebooks" / "claims.toml").write_text(smaller)
    regenerate(root)
    assert results(root).count("registered**: family: 25 registered, 4 found.") == 4

    register(root, date="another day")
    regenerate(root)
    assert "registered**: its record is of another registration." in results(root)
    registration_path(root / "notebooks" / "01_toy.ipynb").unlink()
    regenerate(root)
    assert "registered**: not registered." in results(root)


def test_a_replication_stands_beside_what_it_repeats(root, rows):
    content = register(root)
    (root / "docs").mkdir()
    (root / "docs" / "records.md").write_text("<!-- records:begin -->\n<!-- records:end -->\n")
    publish([run(root, rows)], root)
    again = run(root, rows, preset="replica")
    assert again.params["first_seed"] == content["replica_seed"]
    publish([again], root)
    assert not (root / "records" / "01_toy.replica.png").exists()
    text = results(root)
    assert "| Does good clipping help? | **helps** | holds |" in text
    good = answer(text, "Does good clipping help?")
    assert "* Replicated on other draws and seeds: holds; loss +0." in good
    rows_made = (root / "docs" / "records.md").read_text()
    assert "[01_toy, replication](../notebooks/01_toy.ipynb)" in rows_made
    assert stale(root) == []
    with pytest.raises(ValueError, match=r"first_seed: \d+ registered"):
        publish([replace(again, params=again.params | {"first_seed": 5})], root)


def verdict(outcome, loss=None, failures=None):
    ends = [
        None if e is None else Estimate((e[0] + e[1]) / 2, *e, 0.01, 48) for e in (loss, failures)
    ]
    return Verdict("id", "comparison", "?", "01", Outcome(outcome), loss=ends[0], failures=ends[1])


@pytest.mark.parametrize(
    ("first", "again", "said"),
    [
        ("helps", verdict("helps"), "holds"),
        ("no matter", verdict("no matter"), "holds"),
        ("harms", verdict("harms"), "holds"),
        ("helps", verdict("unclear", (0.1, 0.3), (-0.1, 0.1)), "holds, less surely: unclear"),
        ("helps", verdict("unclear", (-0.1, 0.1), (0.05, 0.1)), "holds, less surely: unclear"),
        ("helps", verdict("unclear", (0.1, 0.3), (-0.2, -0.1)), "does not hold: unclear"),
        ("helps", verdict("unclear", (-0.1, 0.3), (-0.1, 0.1)), "does not hold: unclear"),
        ("helps", verdict("harms", (-0.3, -0.1), (-0.1, 0.1)), "does not hold: harms"),
        ("harms", verdict("unclear", (-0.3, -0.1), None), "holds, less surely: unclear"),
        ("harms", verdict("unclear", (0.1, 0.3), None), "does not hold: unclear"),
        ("no matter", verdict("unclear", (-0.3, 0.3), None), "does not hold: unclear"),
        ("no matter", verdict("helps", (0.2, 0.3), None), "does not hold: helps"),
        ("unclear", verdict("helps"), "again: helps"),
        ("helps", verdict("not run"), "again: not run"),
        ("helps", None, ""),
    ],
)
def test_whether_a_replication_holds(first, again, said):
    assert holds(verdict(first, (0.1, 0.3), (0.0, 0.1)), again) == said


def test_the_records_of_this_project_that_are_registered_carry_their_hash():
    root = Path(__file__).parents[3]
    for path in (root / "records").glob("*.registration.json"):
        published = path.with_name(path.name.replace(".registration", ""))
        about = json.loads(published.read_text()) if published.exists() else {}
        if "registration" in about:
            assert about["registration"] == json.loads(path.read_text())["hash"]
