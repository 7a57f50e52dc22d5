"""The twelve answers: words by outcome, numbers of record, and no outcome without words."""

import json
import math
import re
import tomllib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from studying import comparison, demonstration, identity

from cliplab.lab.claims.ledger import Ledger, load_ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report.backing import Backing, backings
from cliplab.lab.report.published import Published, load_published
from cliplab.lab.report.twelve import overall, read_answers
from cliplab.lab.report.words import GRADES
from cliplab.lab.runs.csvrows import write_rows
from cliplab.lab.stats.paired import Estimate

ROOT = Path(__file__).parents[3]
ANSWERS = ROOT / "notebooks" / "answers.toml"
OUTCOMES = {
    "comparison": ("helps", "no matter", "harms", "unclear", "not run"),
    "identity": ("holds", "fails", "not run"),
    "share": ("shown", "not run"),
}
WITHOUT_A_VERDICT = ("above", "across", "below", "not run")

CLIP = comparison(id="clip")
OTHER = comparison(id="other", question="Does it help elsewhere?", notebook="02_other")
SHOWN = demonstration(id="shown")
SAME = identity(id="same")
LOSS = Estimate(0.123, 0.05, 0.2, 0.01, 48)
TOML = """
[names]
clip = "an LSTM"
other = "a CNN"

[[answer]]
question = "Does it help?"
notebooks = ["00_first"]
figure = ["{clip.effect}", "elsewhere {other.effect}"]
fails = ["{clip.note}"]

[[answer.says]]
of = ["clip", "other"]
helps = "it helps {n} of {all} ({names})"
"no matter" = "no matter to {names}"
"not run" = "not measured: {names}"

[[answer.says]]
always = "this is so"

[[decision]]
situation = "An LSTM"
because = ["{clip.effect}"]

[decision.advice]
of = ["clip", "other"]
helps = "Clip"
"no matter" = "Either way"
mixed = "Try both"
harms = "Do not"
"not run" = ""
"""


def verdict(claim, outcome, **changes):
    loss = None if outcome is Outcome.NOT_RUN else LOSS
    about = {"first": claim.first, "rival": claim.rival, "margin": 0.05, "unit": "nats"}
    given = Verdict(claim.id, claim.kind, claim.text, claim.notebook, outcome, loss=loss, **about)
    return replace(given, **changes)


def answers(root, *verdicts, toml=TOML, again=(), about=None, about_again=None):
    (root / "notebooks").mkdir(exist_ok=True)
    (root / "notebooks" / "answers.toml").write_text(toml)
    claims = {c.id: c for c in (CLIP, OTHER, SHOWN, SAME)}
    own = {"01_toy": list(verdicts)}
    published = Published(about or {}, own, {}, {v.id: v for v in again}, about_again or {})
    return read_answers(published, Ledger(claims, 9), root)


def test_claims_of_one_outcome_share_a_clause_and_the_numbers_are_of_record(tmp_path):
    found, decisions = answers(
        tmp_path, verdict(CLIP, Outcome.HELPS), verdict(OTHER, Outcome.NO_MATTER)
    )
    [answer] = found
    assert answer.sentence == "It helps 1 of 2 (an LSTM); no matter to a CNN; this is so."
    told = "+0.123 [+0.050, +0.200] nats (0.05 would matter)"
    assert answer.figure == f"{told}; elsewhere {told}"
    assert decisions[0].because == told
    assert answer.fails == (f"an LSTM and a CNN: {CLIP.counter}",)
    assert answer.grade == "decided"
    assert answer.notebooks == (CLIP.notebook, "02_other", "00_first")
    assert [(d.situation, d.advice) for d in decisions] == [("An LSTM", "Clip")]
    [both], _ = answers(tmp_path, verdict(CLIP, Outcome.HELPS), verdict(OTHER, Outcome.HELPS))
    assert both.sentence == "It helps 2 of 2 (an LSTM and a CNN); this is so."


def test_an_answer_ends_where_any_claim_that_it_rests_on_ends(tmp_path):
    limits = {"clip": "with Adam, whose steps are scaled; deeper", "other": "wider; with Adam"}
    claims = {one.id: replace(one, counter=limits[one.id]) for one in (CLIP, OTHER)}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "answers.toml").write_text(TOML)

    def fails(clip, other):
        own = [verdict(claims["clip"], clip, note="few"), verdict(claims["other"], other)]
        [answer], _ = read_answers(Published({}, {"01": own}, {}), Ledger(claims, 9), tmp_path)
        return answer.fails

    both = ("few", "an LSTM and a CNN: with Adam", "an LSTM: deeper", "a CNN: wider")
    assert fails(Outcome.HELPS, Outcome.NO_MATTER) == both
    assert fails(Outcome.NOT_RUN, Outcome.HELPS) == ("wider; with Adam",)  # the only one


def test_what_is_not_measured_is_said_and_its_numbers_are_left_out(tmp_path):
    [answer], [decision] = answers(
        tmp_path, verdict(CLIP, Outcome.NOT_RUN), verdict(OTHER, Outcome.HELPS)
    )
    assert answer.sentence == "It helps 1 of 2 (a CNN); not measured: an LSTM; this is so."
    assert answer.figure == "elsewhere +0.123 [+0.050, +0.200] nats (0.05 would matter)"
    assert answer.grade == "decided 1, not measured 1"
    assert (decision.advice, decision.because) == ("Clip", "")


def test_an_outcome_without_a_template_is_named_with_its_question(tmp_path):
    own = [verdict(CLIP, Outcome.HARMS), verdict(OTHER, Outcome.HELPS)]
    message = r"answer 1 \(Does it help\?\): no template for the outcome 'harms'"
    with pytest.raises(ValueError, match=message):
        answers(tmp_path, *own)
    _, [decision] = answers(
        tmp_path, *own, toml=TOML.replace('helps = "it', 'harms = ""\nhelps = "it')
    )
    assert decision.advice == "Try both"
    with pytest.raises(ValueError, match="decision 'An LSTM': no template for the outcome 'mixed'"):
        answers(
            tmp_path,
            *own,
            toml=TOML.replace('helps = "it', 'harms = ""\nhelps = "it').replace("mixed", "never"),
        )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("{clip.effects}", r"answer 1 .*\{clip.effects\}, expected one of effect, margins"),
        ("{clips.effect}", "answer 1 .*nothing of record is called 'clips'"),
    ],
)
def test_a_number_that_there_is_not_is_an_error_in_a_sentence(tmp_path, wrong, message):
    own = [verdict(CLIP, Outcome.HELPS), verdict(OTHER, Outcome.HELPS)]
    with pytest.raises(ValueError, match=message):
        answers(tmp_path, *own, toml=TOML.replace("it helps {n}", f"it helps {wrong}"))


def test_how_sure_an_answer_is_follows_from_the_record(tmp_path):
    first = verdict(CLIP, Outcome.HELPS)
    other = verdict(OTHER, Outcome.HELPS)

    def grade(again):
        return answers(tmp_path, first, other, again=[again])[0][0].grade

    assert grade(first) == "replicated 1, decided 1"
    low = Estimate(0.01, -0.04, 0.06, 0.9, 48)
    again = replace(first, outcome=Outcome.NO_MATTER, loss=low)
    assert grade(again) == "decided 1, not replicated 1"


def test_a_superseded_record_has_its_own_grade_and_decides_nothing(tmp_path):
    own = [verdict(CLIP, Outcome.HELPS), verdict(OTHER, Outcome.NO_MATTER)]
    pending = {"pending": "the loss was wrong"}
    [answer], [decision] = answers(tmp_path, *own, again=own, about={CLIP.notebook: pending})
    assert answer.grade == "replicated 1, superseded 1"
    assert decision.advice == "Either way"  # as the other one has it
    not_run = verdict(CLIP, Outcome.NOT_RUN)
    [answer], _ = answers(tmp_path, not_run, own[1], about={CLIP.notebook: pending})
    assert answer.grade == "decided 1, not measured 1"
    [answer], _ = answers(tmp_path, *own, again=own, about_again={CLIP.notebook: pending})
    assert answer.grade == "replicated 1, decided 1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('question = "Does it help?"', "", "answer 1: no question"),
        ("[[answer.says]]", "[[answer.said]]", r"answer 1: no says"),
        ('situation = "An LSTM"', "", "decision 1: no situation"),
        ("fails = [", "fail = [", "answer 1: 'fail', expected one of question, says, figure"),
        ('because = ["{clip.effect}"]', 'because = "x"', "because = 'x', expected a list"),
        ('always = "this is so"', "always = 3", r"answer 1 \(.*: always = 3, expected a str"),
        (TOML, "answer = 3", r"answers\.toml: answer = 3, expected a list"),
        (TOML, "answer = [3]", "answer 1 = 3, expected a table"),
        (TOML, "[[decision]]\nsituation = 's'", "decision 1: no advice"),
    ],
)
def test_a_damaged_file_is_refused_and_the_place_is_named(tmp_path, old, new, message):
    own = [verdict(CLIP, Outcome.HELPS), verdict(OTHER, Outcome.HELPS)]
    assert old in TOML
    with pytest.raises(ValueError, match=message):
        answers(tmp_path, *own, toml=TOML.replace(old, new))


def test_what_has_no_verdict_goes_by_where_its_interval_lies(tmp_path):
    def side(low, high):
        shown = verdict(SHOWN, Outcome.SHOWN, loss=Estimate((low + high) / 2, low, high, 0.1, 8))
        published = Published({}, {"01_toy": [shown]}, {})
        found = backings(published, Ledger({SHOWN.id: SHOWN}, 9), tmp_path)["shown"]
        return found.outcome, found.grade

    assert side(math.nan, math.nan) == ("across", "description")  # too few seeds
    assert side(0.1, 0.2) == ("above", "description")
    assert side(-0.1, 0.2) == ("across", "description")
    assert side(-0.2, -0.1) == ("below", "description")


def test_what_would_matter_stands_beside_a_difference_in_failures(tmp_path):
    failures = Estimate(0.225, 0.17, 0.291, 0.0, 129)
    own = verdict(CLIP, Outcome.HELPS, failures=failures, failure_margin=0.1)
    found = backings(Published({}, {"01_toy": [own]}, {}), Ledger({CLIP.id: CLIP}, 9), tmp_path)
    assert found["clip"].told["failures"] == "+22.5 [+17.0, +29.1] points (10 would matter)"


def test_measures_over_all_tasks_are_of_the_rows_that_stand_for_clipping(tmp_path):
    (tmp_path / "records").mkdir()
    nothing = backings(Published({}, {}, {}), Ledger(), tmp_path)
    assert {one.outcome for one in nothing.values()} == {"not run"}
    rows = []
    for i in range(8):  # the narrower without clipping, the more is gained
        common = {"seed": 0, "task": f"t{i}", "margin": 0.5, "wider": 0.1, "norm_peak": None}
        common |= {f"regret_{name}": 1.0 for name in ("recipe", "0.25", "1", "5")}
        common |= {"screened_failures": 0.1, "clip_fraction": 0.5, "regret": 2.0 + i}
        none = {"arm": f"t{i}: none", "usable": 1 / (1 + i), "gain": None}
        norm = {"arm": f"t{i}: norm", "usable": 1.0, "gain": 0.5 * i}
        again = {"arm": f"t{i}: again", "usable": 1.0, "gain": -9.0}
        for one in (none, norm, again):
            rows.append({**common, **one, "stands_for_clipping": one is norm})
    (tmp_path / "records" / "16_across_models.csv").write_text(write_rows(rows))
    found = backings(Published({}, {}, {}), Ledger(), tmp_path)
    assert found["rank_usable"].outcome == "below"
    assert found["rank_usable"].told["effect"].startswith("−1.0")
    assert found["rank_peak"].outcome == "not run"  # no row has it
    assert found["gain"].told == {"effect": "+3.50 [+0.00, +7.00] margins", "n": "8"}
    assert found["regret_none"].told["effect"] == "+5.50 [+2.00, +9.00] margins"
    assert found["regret_quarter"].told["effect"] == "+1.00 [+1.00, +1.00] margins"


def test_one_word_for_several_answers():
    assert overall(["not run", "unclear"]) == "unclear"
    assert overall(["no matter", "harms"]) == "harms"
    assert overall(["above", "below"]) == overall(["helps", "harms", "no matter"]) == "mixed"


def test_without_the_file_there_are_no_answers(tmp_path):
    assert read_answers(*ours(), tmp_path) == ([], [])


@cache
def ours():
    ledger = load_ledger(ROOT)
    return load_published(ROOT, ledger), ledger


def test_the_twelve_questions_have_answers_with_notebooks_that_exist():
    found, decisions = read_answers(*ours(), ROOT)
    assert [answer.number for answer in found] == list(range(1, 13))
    for one in [*found, *decisions]:
        assert all((ROOT / "notebooks" / f"{name}.ipynb").exists() for name in one.notebooks)
        assert "{" not in repr(one)
    for answer in found:
        assert answer.sentence.endswith(".")
        assert answer.notebooks
        assert set(re.sub(r" \d+", "", answer.grade).split(", ")) <= {"identity", *GRADES}


def test_of_one_situation_alone_is_no_number_of_record():
    _, decisions = read_answers(*ours(), ROOT)
    silent = [one.situation for one in decisions if not one.because]
    assert silent == ["Several optimizers over one model"]


def test_every_outcome_of_every_claim_has_words(monkeypatch):
    """As each claim in turn comes out otherwise; also where nothing is measured yet."""
    from cliplab.lab.report import twelve as module

    known = backings(*ours(), ROOT)
    table = tomllib.loads(ANSWERS.read_text("utf-8"))
    used = {i for one in table["answer"] for clause in one["says"] for i in clause.get("of", ())}
    used |= {i for one in table["decision"] for i in one["advice"].get("of", ())}
    claims = ours()[1].claims
    for name in sorted(used):
        kind = claims[name].kind if name in claims else ""
        for outcome in OUTCOMES.get(kind, WITHOUT_A_VERDICT):
            empty = outcome == "not run"
            told = (
                {"counter": "c", "effect": "", "n": "3"}
                if empty
                else dict.fromkeys(
                    ("effect", "margins", "failed", "failures", "usable", "note", "counter", "n"),
                    "1",
                )
            )
            other = Backing(name, known[name].notebook, outcome, "decided", told)
            monkeypatch.setattr(module, "backings", lambda *_, o=other: {**known, o.id: o})
            read_answers(*ours(), ROOT)


def test_no_number_of_a_result_is_written_by_hand():
    """What is left of the file's words without names, placeholders and constants that are known."""
    words = [
        text
        for text in json.dumps(tomllib.loads(ANSWERS.read_text("utf-8"))).split('"')
        if not re.fullmatch(r"\d\d_\w+", text)
    ]
    known = {"12", "0.9", "1.0", "0.25", "A2C", "2"}
    left = {n for text in words for n in re.findall(r"\d[\d.]*\d|\d", re.sub(r"\{.*?\}", "", text))}
    assert left <= known
