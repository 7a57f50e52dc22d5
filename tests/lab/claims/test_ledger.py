"""The ledger: kinds with keys of their own, and errors that name the claim and the key."""

import re
from pathlib import Path

import pytest
from studying import as_toml, comparison

from cliplab.lab.claims import load_ledger
from cliplab.lab.claims.ledger import KINDS, registered

ROOT = Path(__file__).parents[3]
TEXT = {
    "comparison": as_toml(comparison()),
    "demonstration": """
[shown]
kind = "demonstration"
notebook = "01_toy"
statement = "At ten times the best rate none fails"
metric = "solved"
better = "higher"
first = "norm"
rival = "none"
unit = "share"
chosen = "none fails there"
source = "Nobody 2013"
literature = "no number given"
""",
    "share": """
[often]
kind = "share"
notebook = "01_toy"
statement = "Errors that are seen"
metric = "seen"
arms = ["error"]
unit = "errors"
chosen = "errors that we thought of"
source = "Nobody 2013"
literature = "no number given"
""",
    "identity": """
[same]
kind = "identity"
notebook = "01_toy"
statement = "A huge threshold changes nothing"
metric = "same"
arms = ["huge", "none"]
source = "algebra"
""",
    "withdrawn": '\n[C1]\nkind = "withdrawn"\nnotebook = "01_toy"\nstatement = "It helped"\n',
    "a/a": as_toml(
        comparison(id="aa", kind="a/a", rival="norm again", source="", literature="", counter="")
    ).removeprefix("family = 1\n"),
    "estimate": as_toml(comparison(id="large", kind="estimate")).removeprefix("family = 1\n"),
}


def ledger(folder, text):
    (folder / "claims.toml").write_text(text, encoding="utf-8")
    return load_ledger(folder)


def test_every_kind_has_its_keys_and_only_comparisons_are_of_the_family(tmp_path):
    found = ledger(tmp_path, "".join(TEXT.values()))
    assert [claim.kind for claim in found.claims.values()] == list(TEXT)
    assert set(TEXT) == set(KINDS)
    assert found.family == 1
    assert [c.id for c in found.claims.values() if c.kind == "comparison"] == ["toy_norm"]
    assert len(found.of_notebook("01_toy")) == 7
    assert {claim.kind for claim in found.studied("01_toy")} == {"comparison", "a/a", "estimate"}
    assert found.claims["same"].arms == ("huge", "none")
    assert found.claims["toy_norm"].failure_margin == 0.10
    assert found.claims["toy_norm"].text == comparison().question
    assert found.claims["C1"].text == "It helped"


def test_what_is_registered_of_a_claim_is_all_that_the_ledger_says_of_it(tmp_path):
    claim = comparison(bet="helps", failure_margin=0.2)
    [again] = ledger(tmp_path, as_toml(claim)).claims.values()
    assert again == claim
    required, optional = KINDS["comparison"]
    assert set(claim.registered()) == {"kind", *required, *optional}
    assert comparison(margin=0.2).registered() != comparison().registered()


def test_the_family_is_what_is_planned_and_at_least_what_is_there(tmp_path):
    assert ledger(tmp_path, as_toml(comparison(), family=25)).family == 25
    two = as_toml(comparison(), comparison(id="other")).removeprefix("family = 1\n")
    assert ledger(tmp_path, two).family == 2
    for wrong in ("1", "2.0", "true", '"2"'):
        with pytest.raises(ValueError, match=r"family = .*expected a whole number >= 2"):
            ledger(tmp_path, f"family = {wrong}\n{two}")


def toml_with(key, value):
    return re.sub(rf"^{key} = .*$", f"{key} = {value}", TEXT["comparison"], flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("C1 = 3", "claim C1 = 3, expected a table"),
        ("[C1]\nnotebook = 'x'", "claim C1: kind = None, expected one of comparison, a/a"),
        ("[C1]\nkind = 'statistical'", "claim C1: kind = 'statistical', expected one of"),
        ("[C1]\nkind = 'withdrawn'\nnotebook = 'x'", "claim C1: statement is missing"),
        (TEXT["withdrawn"] + "margin = 0.1", "claim C1: a withdrawn has no key 'margin'"),
        (TEXT["comparison"] + "margins = 1", "claim toy_norm: a comparison has no key 'margins'"),
        (TEXT["comparison"] + "expected = 'helps'", "a comparison has no key 'expected'"),
        (toml_with("literature", '" "'), "claim toy_norm: literature = ' ', expected a text"),
        (toml_with("source", "3"), "source = 3, expected a text"),
        (toml_with("margin", "0.0"), r"margin = 0\.0, expected a number above 0"),
        (toml_with("margin", "nan"), "margin = nan, expected a number above 0"),
        (toml_with("margin", "inf"), "margin = inf"),
        (toml_with("margin", "true"), "margin = True"),
        (toml_with("margin", '"0.1"'), "margin = '0.1'"),
        (toml_with("failure_margin", "1.0"), r"failure_margin = 1\.0"),
        (toml_with("rival", '"norm"'), "rival = 'norm', expected another than first"),
        (TEXT["identity"].replace('["huge", "none"]', "[]"), r"arms = \[\], expected a list of"),
        (TEXT["identity"].replace('["huge", "none"]', '"huge"'), "arms = 'huge'"),
        (TEXT["demonstration"].replace('"higher"', '"more"'), "better = 'more', expected 'lower'"),
        ("[C1", "claims.toml: "),
    ],
)
def test_a_ledger_names_its_bad_claim(tmp_path, text, complaint):
    with pytest.raises(ValueError, match=complaint):
        ledger(tmp_path, text)


def test_a_ledger_is_beside_the_notebooks_or_missed_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"neither .*/claims.toml nor .*/notebooks/claims.toml"):
        load_ledger(tmp_path)
    assert not registered(tmp_path).claims  # notebooks of one's own claim nothing
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "claims.toml").write_text(TEXT["comparison"])
    assert load_ledger(tmp_path) == load_ledger(tmp_path / "notebooks")


def test_the_ledger_of_the_collection_is_of_notebooks_that_are_there():
    found = load_ledger(ROOT)
    for claim in found.claims.values():
        assert (ROOT / "notebooks" / f"{claim.notebook}.ipynb").exists()
    assert len(found.claims) > 0
    assert sum(c.kind == "comparison" for c in found.claims.values()) <= found.family
