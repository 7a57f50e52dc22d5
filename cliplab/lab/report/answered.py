"""The twelve answers and the notebooks' own as tables: what opens README.md and RESULTS.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from cliplab.lab.report.markdown import link, markdown, short_links
from cliplab.lab.report.published import Published
from cliplab.lab.report.tables import effect
from cliplab.lab.report.twelve import Answer, Decision
from cliplab.lab.report.words import linked

__all__ = ["answers_list", "answers_table", "decisions_table", "notebooks_table"]


def answers_table(answers: Iterable[Answer], root: str = "") -> str:
    """Question, sentence, the first number and notebooks: what the README has room for."""
    return markdown(
        {
            "Question": answer.question,
            "Answer": answer.sentence,
            "Number": answer.figure.partition("; ")[0],
            "In": short_links(answer.notebooks[:4], root),
        }
        for answer in answers
    )


def answers_list(answers: Sequence[Answer], root: str = "") -> str:
    """All that there is of each answer, one below the other, for a page in a folder."""
    return "\n".join(line for answer in answers for line in _listed(answer, root))


def _listed(answer: Answer, root: str) -> Iterator[str]:
    yield f"{answer.number}. **{answer.question}** {answer.sentence}"
    for name, text in (
        ("Number", answer.figure),
        ("How sure", _graded(answer.grade, root)),
        ("Not to be read beyond", answer.fails),
        ("Notebooks", short_links(answer.notebooks, root)),
    ):
        if isinstance(text, str):
            text = [text] if text else []
        if len(text) == 1:
            yield f"    * {name}: {text[0]}"
        elif text:
            yield f"    * {name}:"
            yield from (f"        * {one}" for one in text)


def _graded(grade: str, root: str) -> str:
    """How sure an answer is, each word leading to what it means."""
    return re.sub("[a-z]+(?: [a-z]+)*", lambda word: linked(word[0], root), grade)


def decisions_table(decisions: Iterable[Decision], root: str = "") -> str:
    """Which method to use, by situation; a cell that no record backs is empty."""
    return markdown(
        {
            "Situation": decision.situation,
            "What to do": decision.advice,
            "Because": decision.because,
            "In": short_links(decision.notebooks, root),
        }
        for decision in decisions
    )


def notebooks_table(published: Published) -> str:
    """A line a notebook: its question, and the answers in a word or a number."""
    return markdown(
        {
            "Notebook": link(name),
            "Question": about["question"],
            "Answers": _in_short(published, name),
        }
        for name, about in published.about.items()
    )


def _in_short(published: Published, notebook: str) -> str:
    verdicts = published.verdicts[notebook]
    compared = [v for v in verdicts if v.kind == "comparison"]
    answers = [f"{v.first} against {v.rival} (`{v.id}`): {v.verdict}" for v in compared]
    for v in verdicts:
        if v.kind == "estimate":
            answers.append(f"`{v.id}`: {effect(v.loss, v.unit) if v.loss else v.verdict}")
    answers += [f"`{v.id}`: {v.note}" for v in verdicts if v.kind == "share" and v.loss]
    if any(v.kind == "withdrawn" for v in verdicts):
        answers.append("withdrawn, being redone" if not answers else "others withdrawn")
    return "; ".join(answers)
