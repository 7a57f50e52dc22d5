"""The twelve answers and the notebooks' own as tables: what opens README.md and RESULTS.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cliplab.lab.report.markdown import link, markdown, short_links
from cliplab.lab.report.published import Published
from cliplab.lab.report.tables import effect, number
from cliplab.lab.report.twelve import Answer, Decision
from cliplab.lab.report.words import linked
from cliplab.lab.runs.csvrows import read_rows

__all__ = ["answers_list", "answers_table", "decisions_table", "notebooks_table", "sizes"]

SIZED = "19_scale"  # the notebook whose rows say how many parameters a model has


def sizes(root: Path, up: str = "") -> str:
    """How small the models are, if a record says so, as a paragraph; ``up`` leads to ``root``."""
    path = root / "records" / f"{SIZED}.csv"
    rows = read_rows(path.read_text(encoding="utf-8")) if path.exists() else []
    found = [row["parameters"] for row in rows if row.get("parameters")]
    if not found:
        return ""
    counted = f"{number(min(found))} to {number(max(found))} parameters"
    where = short_links([SIZED], up)
    return f"**All models are small**: where sizes are compared, {counted} ({where}).\n\n"


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
    for name, texts in (
        ("Number", [answer.figure]),
        ("How sure", [_graded(answer.grade, root)]),
        ("Not to be read beyond", answer.fails),
        ("Notebooks", [short_links(answer.notebooks, root)]),
    ):
        if len(texts) > 1:
            yield f"    * {name}:"
            yield from (f"        * {text}" for text in texts)
        elif any(texts):
            yield f"    * {name}: {texts[0]}"


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
