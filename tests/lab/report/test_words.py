"""Every word that a page may show as an answer, a kind or a grade is explained, once."""

import re
from pathlib import Path

from cliplab.lab.claims.ledger import KINDS
from cliplab.lab.claims.verdict import Outcome
from cliplab.lab.report.markdown import markdown
from cliplab.lab.report.words import HOW_SURE, PARTS, REASONS, WORDS, glossary, slug, terms_cell

ROOT = Path(__file__).parents[3]


def test_every_outcome_kind_reason_and_grade_is_explained():
    assert {*KINDS, *Outcome} <= set(WORDS)
    rule = (ROOT / "cliplab" / "lab" / "claims" / "rule.py").read_text("utf-8")
    reasons = set(re.findall(r'Outcome\.UNCLEAR, "([a-z ]+)"', rule))
    assert len(reasons) > 3
    assert reasons <= set(REASONS)
    assert set(PARTS["How sure an answer is"]) < set(re.findall(r"\*([a-z ]+)\*", HOW_SURE))


def test_each_word_has_an_anchor_of_its_own_and_stands_in_the_glossary_and_the_cell():
    assert len({slug(word) for word in WORDS}) == len(WORDS) == sum(map(len, PARTS.values()))
    headings = re.findall(r"^### (.*)$", glossary(), re.MULTILINE)
    assert headings == [*WORDS]
    for word, told in WORDS.items():
        row = markdown([{"Word": f"**{word}**", "Meaning": told}]).splitlines()[-1]
        assert row in terms_cell()
