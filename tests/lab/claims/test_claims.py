import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cliplab.lab.claims import Claim, Outcome, judge, judge_all, load_ledger
from cliplab.lab.claims.ledger import registered

ROOT = Path(__file__).parents[3]

PAIRED = Claim(
    id="P",
    statement="norm 1 <beats> none",
    notebook="nb",
    kind="statistical",
    test="paired",
    metric="loss",
    better="lower",
    contrast={"norm 1": 1, "none": -1},
    margin=0.1,
    margin_reason="the spread of seeds",
    unit="nats",
    n=12,
    source="a paper",
    counter="another paper",
    expected="supported",
    baseline=3.0,
    control={"norm 1": 1, "norm .01": -1},
)
SHARES = dataclasses.replace(
    PAIRED,
    id="S",
    test="mcnemar",
    metric="solved",
    better="higher",
    margin=0.25,
    unit="share",
    baseline=0.1,
)
EXACT = Claim(
    id="E",
    statement="nothing changes",
    notebook="nb",
    kind="exact",
    test="exact",
    metric="identical",
    contrast={"huge": 1},
    n=3,
    source="a paper",
    counter="none known",
    expected="supported",
)
NOISE = np.random.default_rng(0).normal(size=(3, 12))
SEED = 2 + 0.1 * NOISE[0]


def rows(metric="loss", **columns):
    """Rows of the arms norm_1 ("norm 1"), none, norm_01 ("norm .01"), ... seed by seed."""
    names = {"norm_1": "norm 1", "norm_01": "norm .01"}
    return [
        {"arm": names.get(arm, arm), "seed": 2000 + seed, metric: value}
        for arm, column in columns.items()
        for seed, value in enumerate(np.asarray(column).tolist())
    ]


def losses(gain, spread=0.02, **more):
    """Unclipped arm minus clipped arm = gain, and a control that is far off."""
    arms = {"norm_1": SEED, "none": SEED + gain + spread * NOISE[1], "norm_01": SEED + 5}
    return rows(**(arms | more))


def first(k, n=12):
    return np.arange(n) < k


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [
        (0.5, 0.02, "supported"),
        (-0.5, 0.02, "refuted"),
        (0.0, 0.02, "equivalent"),
        (0.05, 0.02, "equivalent"),  # real, and too small to matter
        (0.1, 0.02, "inconclusive"),  # the interval crosses the margin
        (0.0, 0.5, "inconclusive"),
    ],
)
def test_rule_for_paired_metrics(gain, spread, verdict):
    assert judge(PAIRED, losses(gain, spread)).verdict == verdict


def test_estimate_below_the_margin_is_not_enough():
    found = judge(PAIRED, losses(0.09, 0.04))
    assert found.low > 0
    assert found.p < 0.05
    assert found.effect < 0.1 < found.high
    assert found.verdict == "inconclusive"


@pytest.mark.parametrize("sign", [1, -1])
def test_estimate_and_p_are_not_enough(sign):
    found = judge(
        PAIRED,
        losses(0, none=SEED.round() + sign * np.where(first(10), 1, -1), norm_1=SEED.round()),
    )
    assert found.p < 0.05
    assert abs(found.effect) > 0.1
    assert 0 in (found.low, found.high)
    assert found.verdict == "inconclusive"


def test_effect_has_the_sign_of_the_statement():
    higher = dataclasses.replace(PAIRED, better="higher", baseline=None, control=None)
    lower = judge(PAIRED, losses(0.5))
    assert lower.effect == pytest.approx(0.5, abs=0.05)
    assert judge(higher, losses(0.5)).effect == pytest.approx(-lower.effect)
    failed = dataclasses.replace(SHARES, metric="failed", better="lower")
    found = judge(failed, rows("failed", norm_1=first(0), none=first(9), norm_01=first(12)))
    assert (found.effect, found.verdict) == (0.75, "supported")


def test_an_interaction_is_a_difference_of_differences():
    weights = {"a": 1, "b": -1, "c": -1, "d": 1}
    claim = dataclasses.replace(
        PAIRED, better="higher", contrast=weights, baseline=None, control=None
    )
    found = judge(claim, rows(a=SEED + 1, b=SEED, c=SEED * 3 + 0.25, d=SEED * 3))
    assert found.effect == pytest.approx(0.75)
    assert found.verdict == "supported"
    chance = np.full(12, 1000 / 3)
    none = judge(claim, rows(a=chance, b=SEED, c=chance, d=SEED))
    assert (none.effect, none.low, none.high, none.p) == (0, 0, 0, 1)  # no rounding noise


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        (first(11), first(0), "supported"),
        (first(0), first(11), "refuted"),
        (first(10), first(10), "equivalent"),
        (first(4), first(0), "inconclusive"),
        (first(12) > 0, first(11), "inconclusive"),
    ],
)
def test_rule_for_success_shares(a, b, verdict):
    assert judge(SHARES, rows("solved", norm_1=a, none=b, norm_01=first(0))).verdict == verdict


@pytest.mark.parametrize(
    ("claim", "data", "reason"),
    [
        (
            dataclasses.replace(PAIRED, baseline=None, control=None),
            losses(0),
            "no baseline and positive control are registered",
        ),
        (PAIRED, losses(0, none=SEED + 1, norm_1=SEED + 1), "does not beat the baseline 3"),
        (PAIRED, losses(0, norm_01=SEED + 0.05), "positive control not detected"),
        (PAIRED, losses(0, norm_01=SEED + 50 * NOISE[2]), "positive control not detected"),
        (PAIRED, losses(0)[:24], "positive control was not run (norm .01)"),
        (
            SHARES,
            rows("solved", norm_1=first(1), none=first(1), norm_01=first(0)),
            "norm 1 (0.0833) does not beat the baseline 0.1",
        ),
    ],
)
def test_finding_nothing_is_not_equivalence(claim, data, reason):
    found = judge(claim, data)
    assert found.verdict == "inconclusive"
    assert reason in found.note


def test_too_few_seeds_keep_the_estimate():
    found = judge(PAIRED, [row for row in losses(0.5) if row["seed"] < 2006])
    assert found.verdict == "inconclusive (n=6)"
    assert found.effect == pytest.approx(0.5, abs=0.05)
    two = judge(PAIRED, [row for row in losses(0.5) if row["seed"] < 2002])
    assert (two.low, two.high, two.verdict) == (None, None, "inconclusive (n=2)")
    json.dumps(two.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("holds", "verdict"),
    [
        ([True] * 3, "supported"),
        ([True] * 2, "inconclusive (n=2)"),
        ([True, False, True, False], "refuted"),
        ([False], "refuted"),  # one counterexample is enough
    ],
)
def test_rule_for_identities(holds, verdict):
    found = judge(EXACT, rows("identical", huge=holds))
    assert found.verdict == verdict
    assert (found.effect, found.low, found.high, found.p) == (None,) * 4
    assert found.n == len(holds)


def test_a_refuted_identity_says_where():
    note = judge(EXACT, rows("identical", huge=[True, False, True, False])).note
    assert note == "2 false: huge (seed 2001), huge (seed 2003)"


def test_diverged_runs_are_counted_in_the_note():
    data = [row | {"diverged": row["arm"] == "none" and row["seed"] < 2005} for row in losses(0.5)]
    assert judge(PAIRED, data).note == "diverged 5/12 in none"


def test_rows_may_be_a_dataframe_in_any_order_with_other_arms():
    data = losses(0.5) + rows(other=[float("nan")])
    shuffled = pd.DataFrame(data).sample(frac=1, random_state=0)
    assert judge(PAIRED, shuffled) == judge(PAIRED, data)


@pytest.mark.parametrize(
    ("claim", "data", "message"),
    [
        (PAIRED, losses(0)[1:], r"claim P: arm 'norm 1' lacks seeds \[2000\]"),
        (PAIRED, losses(0)[:1] + losses(0), "claim P: arm 'norm 1' has seed 2000 twice"),
        (PAIRED, losses(0, none=[np.nan] * 12), r"claim P: loss = nan \(arm 'none', seed 2000\)"),
        (PAIRED, losses(0, norm_01=[np.inf] * 12), "claim P: loss = inf .arm 'norm .01'"),
        (PAIRED, losses(0, none=[None] * 12), "claim P: loss = None"),
        (PAIRED, losses(0, none=["1.0"] * 12), "claim P: loss = '1.0'"),
        (SHARES, rows("solved", norm_1=first(3), none=[1.0] * 12), "solved = 1.0 .*true or false"),
        (EXACT, rows("other", huge=first(3)), "claim E: identical = None"),
    ],
)
def test_rows_that_cannot_be_judged(claim, data, message):
    with pytest.raises(ValueError, match=message):
        judge(claim, data)


def test_a_claim_is_looked_up_beside_the_running_notebook(monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    assert judge("C1", []).notebook == "01_exploding_gradients"
    with pytest.raises(ValueError, match="claim 'C999', expected one of C1, "):
        judge("C999", [])


def ledger(*claims):
    return {claim.id: claim for claim in claims}


@pytest.mark.parametrize(("sign", "verdict"), [(1, "supported"), (-1, "refuted")])
def test_the_ledger_is_judged_with_holm_over_its_tests(sign, verdict):
    weak = rows(norm_1=SEED, none=SEED + sign * 0.3 * (NOISE[1] + 1.1), norm_01=SEED + 5)
    claims = [dataclasses.replace(PAIRED, id=f"P{i}", notebook=f"nb{i}") for i in range(10)]
    data = {claim.notebook: weak for claim in claims}
    [alone] = judge_all({"nb0": weak}, "verdict", ledger(claims[0]))
    assert 0.005 < alone.p == alone.p_holm < 0.05
    assert alone.verdict == verdict
    together = judge_all(data, "verdict", ledger(*claims))
    assert len(together) == 10
    assert {found.verdict for found in together} == {"inconclusive"}
    assert together[0].p_holm == pytest.approx(10 * alone.p)
    assert f"(Holm {together[0].p_holm:.2g})" in str(together[0])
    [one_of_ten] = judge_all({"nb0": weak}, "verdict", ledger(*claims))
    assert one_of_ten == together[0]  # a notebook judged alone is not judged more mildly


def test_the_preview_of_a_claim_whose_arms_were_not_run_says_so():
    found = judge(PAIRED, rows(norm_1=SEED))
    assert (found.verdict, found.note) == ("not run", "claim P: no rows of 'none'")


def test_the_preview_has_no_holm():
    assert judge(PAIRED, losses(0.5)).p_holm is None


def test_claims_without_their_rows_are_not_run_and_stop_no_other():
    other = dataclasses.replace(PAIRED, id="Q", contrast={"norm 1": 1, "gone": -1})
    broken = dataclasses.replace(PAIRED, id="R", metric="unknown")
    absent = dataclasses.replace(PAIRED, id="T", notebook="elsewhere")
    found = judge_all({"nb": losses(0.5)}, "verdict", ledger(other, PAIRED, broken, absent))
    assert [(v.id, v.verdict) for v in found] == [
        ("Q", "not run"),
        ("P", "supported"),
        ("R", "not run"),
    ]
    assert (found[0].effect, found[0].n, found[0].p_holm) == (None, None, None)
    assert "'gone'" in found[0].note
    assert found[1].p_holm == 4 * found[1].p  # tests not done count in the ledger's family


@pytest.mark.parametrize("preset", ["smoke", "fingerprint"])
def test_short_presets_measure_and_never_judge(preset):
    data = losses(0.5) + rows("identical", huge=[False])
    found = judge_all({"nb": data}, preset, ledger(PAIRED, EXACT))
    assert {(v.outcome, v.reason) for v in found} == {(Outcome.NO_VERDICT, preset)}
    assert {verdict.verdict for verdict in found} == {f"no verdict ({preset})"}
    assert found[0].effect == pytest.approx(0.5, abs=0.05)


def test_verdict_as_text_html_and_json():
    verdict = judge(PAIRED, losses(0.5))
    assert str(verdict).startswith("P supported: norm 1 <beats> none [effect +0.49")
    assert "p = 0.00049 (before Holm)" in str(verdict)
    assert "margin 0.1; 90 % interval +0." in str(verdict)
    assert "norm 1 &lt;beats&gt; none" in verdict._repr_html_()
    keys = "id statement notebook kind verdict outcome reason note effect low high n p"
    assert list(verdict.to_dict()) == keys.split()
    few = judge(PAIRED, [row for row in losses(0.5) if row["seed"] < 2006]).to_dict()
    published = json.loads(json.dumps(few))
    assert published["verdict"] == "inconclusive (n=6)"
    assert (published["outcome"], published["reason"]) == ("inconclusive", "n=6")
    assert published["note"] == "12 seeds are registered"
    exact = judge(EXACT, rows("identical", huge=[True] * 3))
    assert str(exact) == "E supported: nothing changes [n = 3]"
    not_run = judge_all({"nb": []}, "quick", ledger(PAIRED))[0]
    assert "no rows" in not_run._repr_html_()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"statement": " "}, "statement"),
        ({"source": 3}, "source"),
        ({"test": "t-test"}, "test"),
        ({"kind": "exact"}, "kind"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"n": 12.0}, "n"),
        ({"expected": "yes"}, "expected"),
        ({"better": "smaller"}, "better"),
        ({"margin": 0.0}, "margin"),
        ({"margin": "0.1"}, "margin"),
        ({"margin_reason": None}, "margin_reason"),
        ({"unit": ""}, "unit"),
        ({"contrast": {}}, "contrast"),
        ({"contrast": {"a": 1, "b": 1}}, "contrast"),
        ({"contrast": {"a": 1, "b": float("nan")}}, "contrast"),
        ({"contrast": ["a", "b"]}, "contrast"),
        ({"test": "mcnemar", "contrast": {"a": 1, "b": -1, "c": -1, "d": 1}}, "contrast"),
        ({"control": {"a": 1}}, "control"),
        ({"control": None}, "control"),
        ({"baseline": float("inf")}, "baseline"),
        ({"expected": "equivalent", "baseline": None, "control": None}, "expected"),
    ],
)
def test_a_claim_names_its_bad_key(changes, key):
    with pytest.raises(ValueError, match=f"claim P: {key} = "):
        dataclasses.replace(PAIRED, **changes)


def test_an_identity_has_no_margin():
    with pytest.raises(ValueError, match=r"claim E: margin = 0\.1"):
        dataclasses.replace(EXACT, margin=0.1)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("C1 = 3", "claim C1 = 3, expected a table"),
        ("[C1]\nmargins = 1", "claim C1: unknown key 'margins'"),
        ('[C1]\nid = "C2"', "claim C1: unknown key 'id'"),
        ('[C1]\nstatement = "x"', "claim C1: key 'notebook' is missing"),
        ("[C1", "claims.toml"),
    ],
)
def test_a_ledger_names_its_bad_claim(tmp_path, toml, message):
    (tmp_path / "claims.toml").write_text(toml)
    with pytest.raises(ValueError, match=message):
        load_ledger(tmp_path)


def test_a_ledger_is_beside_the_notebooks_or_missed_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"neither .*/claims.toml nor .*/notebooks/claims.toml"):
        load_ledger(tmp_path)
    assert registered(tmp_path) == {}  # notebooks of one's own claim nothing
    (tmp_path / "notebooks").mkdir()
    text = (ROOT / "notebooks" / "claims.toml").read_text(encoding="utf-8")
    (tmp_path / "notebooks" / "claims.toml").write_text(text, encoding="utf-8")
    assert load_ledger(tmp_path) == load_ledger(tmp_path / "notebooks") == load_ledger(ROOT)


def test_the_registered_claims_are_sound():
    claims = load_ledger(ROOT)
    assert "C1" in claims
    assert all(claim.n >= 12 for claim in claims.values() if claim.kind == "statistical")
    assert all(claim.id == key for key, claim in claims.items())
    assert all((ROOT / "notebooks" / f"{c.notebook}.ipynb").exists() for c in claims.values())
