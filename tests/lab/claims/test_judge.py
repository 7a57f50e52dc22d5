"""Judging: a whole study on a drawn surface, identities, demonstrations, and the family."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from studying import as_toml, comparison, demonstration, identity, on_csv, share, study, surface

from cliplab.lab.claims import Claim, Ledger, Outcome, judge, judge_all
from cliplab.lab.claims.judge import unanswered

CLAIM = comparison()
ABOUT = {"01_toy": {"toy": study().about()}}
A_A = comparison(id="aa", kind="a/a")
SHOWN = demonstration()
SAME = identity()


def studied(size="full", seed=10**6, **truth):
    return study(surface(**truth)).run(size, seed)


def rows_of(metric, **columns):
    """Rows of arms, seed by seed."""
    return [
        {"arm": arm, "seed": 100 + seed, metric: value}
        for arm, column in columns.items()
        for seed, value in enumerate(column)
    ]


@pytest.mark.parametrize(
    ("truth", "word"),
    [
        ({"gain": 0.3}, "helps"),
        ({"gain": -0.3}, "harms"),
        ({"gain": 0.0}, "no matter"),
        ({"gain": 0.0, "handicap": 0.02}, "unclear (control)"),
        ({"gain": 0.0, "handicap": 0.9}, "unclear (control)"),
        ({"gain": 0.0, "sd": 0.4}, "unclear (loss wide)"),
        ({"gain": 0.0, "fails": 0.2}, "helps"),
        ({"gain": -0.3, "fails": 0.2}, "unclear (mixed)"),
        ({"gain": 0.11, "sd": 0.05}, "unclear (below margin)"),
    ],
)
def test_a_study_on_a_surface_gets_the_word_of_its_truth(truth, word):
    found = judge(CLAIM, studied(**truth), study())
    assert found.verdict == word
    assert found.loss.effect == pytest.approx(truth["gain"], abs=0.1 + truth.get("sd", 0) / 4)
    assert found.failures.effect == pytest.approx(truth.get("fails", 0), abs=0.1)
    assert not found.small


@pytest.mark.parametrize("truth", [{"gain": 0.3}, {"fails": 0.1}, {"gain": -0.1, "fails": 0.05}])
def test_rows_from_a_file_or_a_table_in_any_order_give_the_same_verdict(truth):
    rows = studied(**truth) + rows_of("loss", norm=[0.1, 0.2])
    wanted = judge(CLAIM, rows, study())
    assert judge(CLAIM, on_csv(rows), study()) == wanted
    shuffled = pd.DataFrame(rows).sample(frac=1, random_state=0)
    assert judge(CLAIM, shuffled, study()) == wanted
    [all_of] = judge_all({"01_toy": on_csv(rows)}, "verdict", Ledger({"toy_norm": CLAIM}), ABOUT)
    assert all_of == wanted


def test_the_numbers_are_told_with_signs_that_speak_for_the_first_way():
    found = judge(CLAIM, studied(gain=0.3, fails=0.2), study())
    first, rival = found.levels["loss"]
    assert rival - first == pytest.approx(found.loss.effect)
    (x, n, picks), (y, m, _) = found.levels["failures"]
    assert (x, n, m, picks) == (0, 129, 129, [0, 0, 0])
    assert found.failures.effect == pytest.approx(y / m)
    usable = found.levels["usable"]
    assert usable[0] - usable[1] == pytest.approx(found.usable.effect)
    assert found.usable.effect > 0
    assert found.usable_unit == "decades of lr"
    assert found.levels["decades"] == pytest.approx(3)
    assert found.levels["left_out"] <= found.failures.effect
    assert found.control.effect == pytest.approx(0.5, abs=0.1)  # the gain and the handicap
    assert found.control.effect > found.loss.effect
    text = str(found)
    assert text.startswith(f"toy_norm helps: {CLAIM.question} [loss +0.3")
    assert "nats (margin 0.1); failures +" in text
    assert "points (margin 10)" in text


def test_without_the_study_a_handicap_is_known_by_its_lack_of_runs():
    rows = studied(gain=0.0)
    alone, with_it = judge(CLAIM, rows), judge(CLAIM, rows, study())
    assert alone.control == with_it.control
    assert alone.outcome is with_it.outcome is Outcome.NO_MATTER
    assert (alone.usable_unit, with_it.usable_unit) == ("of configurations", "decades of lr")


def test_a_control_that_is_a_way_of_its_own_is_judged_by_its_own_runs():
    ways = {"none": ["lr"], "norm": ["lr", "threshold"], "less": ["lr"]}

    def train(configurations, seeds):
        rows = surface()([c | {"way": "none"} for c in configurations], seeds)
        for row, c in zip(rows, configurations, strict=True):
            worse = 0.2 if c["way"] == "less" else 0.0
            row |= {key: row[key] + worse for key in ("val_loss", "test_loss")}
        return rows

    made = study(train, ways=ways, handicaps={})
    found = judge(comparison(control="less"), made.run("full", 5), made)
    assert found.outcome is Outcome.NO_MATTER
    assert found.control.effect == pytest.approx(0.2, abs=1e-9)


def test_a_best_at_a_closed_edge_of_the_space_withholds_the_word():
    def train(configurations, seeds):
        rows = surface()(configurations, seeds)
        for row, c in zip(rows, configurations, strict=True):
            loss = 3 - 0.3 * math.log10(c["lr"]) - 0.3 * (c["way"] == "norm")
            row |= {key: loss for key in row if key.endswith("loss")}
        return rows

    made = study(train)
    found = judge(CLAIM, made.run("full", 5), made)
    assert found.verdict == "unclear (edge)"
    assert "none: lr at its high end" in found.note
    assert "threshold" not in found.note


@pytest.mark.parametrize("size", ["small", "tiny"])
def test_a_small_study_says_so(size):
    found = judge(CLAIM, studied(size, gain=0.5, sd=0.01), study())
    assert found.small
    assert found.verdict.endswith("small)")
    assert found.failures.p == 1


def test_rows_that_a_study_lacks_are_not_run_or_refused():
    rows = studied("small")
    found = judge(CLAIM, [row for row in rows if row["way"] == "none"])
    assert found.verdict == "not run"
    assert "'norm'" in found.note
    assert judge(CLAIM, []).outcome is Outcome.NOT_RUN
    with pytest.raises(ValueError, match="toy: norm, finalists: 3 runs"):
        judge(CLAIM, rows[:-1])


@pytest.mark.parametrize(
    ("same", "word", "note"),
    [
        ([True] * 3, "holds", "in all 4 rows"),
        ([True, False, True], "fails", "false in 1 of 4: huge (seed 101)"),
    ],
)
def test_an_identity_holds_in_every_row_or_says_where_it_fails(same, word, note):
    found = judge(SAME, rows_of("same", huge=same, none=[True], other=[False]))
    assert (found.verdict, found.note) == (word, note)
    assert found.loss is found.p_holm is found.margin is None


@pytest.mark.parametrize(("better", "sign"), [("lower", 1), ("higher", -1)])
def test_a_demonstration_has_an_interval_and_no_verdict(better, sign):
    first, rival = np.arange(8) / 10, np.arange(8) / 10 + 1 + np.arange(8) / 100
    found = judge(
        replace(SHOWN, better=better), rows_of("loss", norm=first.tolist(), none=rival.tolist())
    )
    assert (found.outcome, found.verdict, found.p_holm) == (Outcome.SHOWN, "shown", None)
    assert found.loss.effect == pytest.approx(sign * 1.035)
    assert found.loss.low <= found.loss.effect <= found.loss.high
    assert found.loss.n == 8


def test_a_share_is_counted_over_the_rows_that_are_asked():
    found = judge(share(), rows_of("seen", error=[True, False, None, True], other=[False] * 4))
    assert found.verdict == "shown"
    assert found.loss.effect == pytest.approx(2 / 3)
    assert (found.loss.n, found.note) == (3, "2 of 3 errors")
    assert found.measured() == "share +0.667 [+0.254, +0.922]; 2 of 3 errors"
    nobody = judge(share(), rows_of("seen", error=[None, None]))
    assert (nobody.loss, nobody.note) == (None, "0 of 0 errors")
    assert judge(share(), []).outcome is Outcome.NOT_RUN
    with pytest.raises(ValueError, match="expected true or false"):
        judge(share(), rows_of("seen", error=[1.0]))


def test_shares_of_a_demonstration_are_no_signed_ranks():
    claim = replace(SHOWN, metric="solved", better="higher", unit="share")
    found = judge(claim, rows_of("solved", norm=[True] * 6, none=[False] * 5 + [True]))
    assert found.loss.effect == pytest.approx(5 / 6)
    assert 0 < found.loss.low < found.loss.effect < found.loss.high <= 1
    assert found.note == "norm: 6 of 6, none: 1 of 6"
    failed = judge(replace(claim, better="lower"), rows_of("solved", norm=[False], none=[True]))
    assert failed.loss.effect == 1
    assert failed.loss.low <= 1 <= failed.loss.high


def test_a_demonstration_of_few_seeds_has_no_interval_and_is_valid_json():
    found = judge(SHOWN, rows_of("loss", norm=[0.1, 0.2], none=[0.3, 0.5]))
    assert "inf" not in str(found)
    assert "difference +0.25 nats" in str(found)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (told["loss"]["low"], told["loss"]["high"]) == (None, None)


def test_diverged_runs_of_a_demonstration_are_counted():
    rows = rows_of("loss", norm=[0.1] * 5, none=[0.3] * 5)
    rows = [row | {"diverged": row["arm"] == "none" and row["seed"] < 102} for row in rows]
    assert judge(SHOWN, rows).note == "diverged: 0 of 5 and 2 of 5"


@pytest.mark.parametrize(
    ("claim", "rows", "complaint"),
    [
        (SHOWN, rows_of("loss", norm=[0.1], none=[0.1, 0.2]), r"shown: seeds \[101\] are in one"),
        (SHOWN, rows_of("loss", norm=[0.1] * 9, none=[0.1] * 9), "9 seeds, .* has 8 at most"),
        (SHOWN, rows_of("loss", norm=[math.nan], none=[0.1]), r"loss = nan \(arm 'norm', seed 100"),
        (SHOWN, rows_of("loss", norm=["0.1"], none=[0.1]), "loss = '0.1' .*a finite number"),
        (SHOWN, rows_of("other", norm=[1.0], none=[1.0]), "loss = None"),
        (SHOWN, rows_of("loss", norm=[1.0], none=[1.0]) * 2, "arm 'norm' has a seed twice"),
        (SAME, rows_of("same", huge=[1], none=[True]), "same = 1 .*expected true or false"),
    ],
)
def test_rows_that_cannot_be_judged_name_claim_arm_and_seed(claim, rows, complaint):
    with pytest.raises(ValueError, match=complaint):
        judge(claim, rows)


def test_a_claim_is_looked_up_beside_the_running_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "claims.toml").write_text(as_toml(CLAIM, family=25))
    assert judge("toy_norm", []).statement == CLAIM.question
    with pytest.raises(ValueError, match="claim 'other', expected one of toy_norm"):
        judge("other", [])
    alone = judge(CLAIM, rows := studied(gain=0.3))
    planned = judge("toy_norm", rows)  # Holm counts what is planned
    assert planned.p_holm == pytest.approx(25 * alone.p_holm)


def test_every_comparison_is_judged_with_holm_over_the_family():
    rows = studied(gain=0.15, sd=0.1, seed=10**6)
    claims = {f"c{i}": comparison(id=f"c{i}", notebook=f"{i:02}") for i in range(3)}
    [alone] = judge_all({"00": rows}, "verdict", Ledger({"c0": claims["c0"]}, 1))
    [far] = judge_all({"00": rows}, "verdict", Ledger({"c0": claims["c0"]}, 25))
    assert far.p_holm == pytest.approx(min(1, 25 * alone.p_holm))
    together = judge_all(dict.fromkeys(("00", "01", "02"), rows), "verdict", Ledger(claims, 25))
    assert [v.id for v in together] == list(claims)
    assert {v.p_holm for v in together} == {far.p_holm}  # equal p: one correction


def test_the_corrected_p_of_what_holm_did_not_reach_is_no_smaller_than_what_stopped_it():
    notebooks = {"00": studied(gain=0.3), "01": studied(gain=0.01), "02": studied(gain=0.005)}
    claims = {f"c{i}": comparison(id=f"c{i}", notebook=f"{i:02}") for i in range(3)}
    found = judge_all(notebooks, "verdict", Ledger(claims, 3))
    assert found[0].outcome is Outcome.HELPS
    p = [v.p_holm for v in found]
    assert p[0] < 0.05 < min(p[1:])


def test_an_estimate_has_what_a_comparison_measures_no_word_and_no_part_in_the_family():
    rows = studied(gain=0.3)
    large = comparison(id="large", kind="estimate")
    claims = {"toy_norm": CLAIM, "large": large}
    alone = judge_all({"01_toy": rows}, "verdict", Ledger({"toy_norm": CLAIM}, 2), ABOUT)
    both = judge_all({"01_toy": rows}, "verdict", Ledger(claims, 2), ABOUT)
    assert both[0] == alone[0]
    assert (both[1].verdict, both[1].p_holm) == ("shown", None)
    for name in ("loss", "failures", "control", "usable", "levels", "margin"):
        assert getattr(both[1], name) == getattr(both[0], name)
    assert judge(large, studied(gain=0.3, size="small")).verdict == "shown (small)"
    assert judge(large, []).outcome is Outcome.NOT_RUN


def test_a_way_against_itself_is_no_part_of_the_family():
    rows = studied(gain=0.3)
    alone = judge_all({"01_toy": rows}, "verdict", Ledger({"toy_norm": CLAIM}, 1), ABOUT)
    both = judge_all({"01_toy": rows}, "verdict", Ledger({"toy_norm": CLAIM, "aa": A_A}, 1), ABOUT)
    assert both[0] == alone[0]
    assert (both[1].kind, both[1].outcome) == ("a/a", Outcome.HELPS)


LEDGER = Ledger(
    {c.id: c for c in (CLAIM, SHOWN, SAME)}
    | {"C1": Claim(id="C1", kind="withdrawn", notebook="01_toy", statement="It helped")}
)
DEMONSTRATED = rows_of("loss", norm=[0.1] * 5, none=[0.3] * 5)


def test_what_is_missing_stops_no_other():
    found = judge_all({"01_toy": DEMONSTRATED}, "verdict", LEDGER, ABOUT)
    assert [v.verdict for v in found] == [
        "not run", "shown", "not run", "withdrawn (being redone)",
    ]  # fmt: skip
    assert "no rows of" in found[0].note
    assert found[2].note == "claim same: no rows of 'huge'"
    assert judge_all({"02_other": DEMONSTRATED}, "verdict", LEDGER) == []
    json.dumps([v.to_dict() for v in found], allow_nan=False)


@pytest.mark.parametrize("preset", ["smoke", "fingerprint", "pilot"])
def test_short_presets_measure_and_give_no_verdict(preset):
    rows = [*studied("tiny", gain=0.3), *DEMONSTRATED, *rows_of("same", huge=[True])]
    rows += [{"arm": "none", "seed": 200, "same": True, "loss": 0.1}]
    rows += [{"arm": "norm", "seed": 200, "loss": 0.1}]
    found = judge_all({"01_toy": rows}, preset, LEDGER, ABOUT)
    words = {v.id: v.verdict for v in found}
    assert words["toy_norm"] == f"no verdict ({preset}, small)"
    assert words["shown"] == f"no verdict ({preset})"
    assert words["C1"] == "withdrawn (being redone)"
    assert found[0].loss.effect == pytest.approx(0.3, abs=0.2)


def test_what_a_fingerprint_does_not_answer_is_named():
    rows = [*studied("tiny"), *DEMONSTRATED]
    assert unanswered(rows, "01_toy", LEDGER, ABOUT["01_toy"]) == ["claim same: no rows of 'huge'"]
    [why, *_] = unanswered(DEMONSTRATED, "01_toy", LEDGER, ABOUT["01_toy"])
    assert "no rows of 'norm', 'none'" in why


def test_a_verdict_is_escaped_in_a_notebook_and_plain_in_json():
    found = judge(CLAIM, studied(gain=0.3), study())
    html = found._repr_html_()
    assert "x &lt; y | z" in html
    assert "helps" in html
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (told["outcome"], told["reason"], told["kind"]) == ("helps", "", "comparison")
    assert told["loss"]["effect"] == found.loss.effect
    assert told["failures"]["n"] == 66
