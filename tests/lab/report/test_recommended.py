"""What follows from the answers, by model and optimizer: a word, and what it rests on."""

import pytest
from studying import comparison

from cliplab.lab.claims.ledger import Ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.report.published import Published
from cliplab.lab.report.recommended import recommendations

LSTM, CNN = "Does it help an LSTM (plain SGD)?", "Does it help a CNN under AdamW?"


def said(*answers, about=None):
    """The tables, of claims ``(id, question, rival, outcome)``."""
    claims = [comparison(id=name, question=q, rival=rival) for name, q, rival, _ in answers]
    verdicts = [
        Verdict(c.id, c.kind, c.text, c.notebook, outcome, first=c.first, rival=c.rival)
        for c, (*_, outcome) in zip(claims, answers, strict=True)
    ]
    published = Published({"01_toy": about or {}}, {"01_toy": verdicts}, {})
    return recommendations(published, Ledger({c.id: c for c in claims}, 9))


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ([Outcome.HELPS, Outcome.NO_MATTER, Outcome.UNCLEAR], "Clip"),
        ([Outcome.HARMS, Outcome.NO_MATTER], "Do not"),
        ([Outcome.HELPS, Outcome.HARMS], "It depends"),
        ([Outcome.NO_MATTER, Outcome.UNCLEAR], "Either way"),
        ([Outcome.UNCLEAR], "Not known"),
    ],
)
def test_the_word_follows_from_the_answers(outcomes, word):
    text = said(*((f"c{i}", LSTM, "none", outcome) for i, outcome in enumerate(outcomes)))
    assert f"| LSTM | **{word}**: " in text
    for i, outcome in enumerate(outcomes):
        assert f"{outcome} [`c{i}`](01_toy.ipynb)" in text


def test_a_cell_without_an_answer_is_empty():
    text = said(
        ("a", LSTM, "none", Outcome.HELPS),
        ("b", CNN, "value", Outcome.NO_MATTER),
        ("c", CNN, "none", Outcome.NOT_RUN),
    )
    at_all, how = text.split("*Which way")
    assert "|  | SGD | AdamW |" in at_all
    assert "| LSTM | **Clip**: helps [`a`](01_toy.ipynb) |  |" in at_all
    assert "| CNN |  |  |" in at_all
    assert "| CNN |  | norm, value: **no matter** [`b`](01_toy.ipynb) |" in how


def test_answers_of_a_superseded_record_are_left_out():
    answer = ("a", LSTM, "none", Outcome.HELPS)
    assert "**Clip**" in said(answer)
    assert "**Clip**" not in said(answer, about={"pending": "the loss was wrong"})
