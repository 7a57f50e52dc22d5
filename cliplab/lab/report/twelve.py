"""The article's twelve questions, answered from the records; and which method follows from them.

The words stand in ``notebooks/answers.toml``, a template for each outcome; the numbers, the grade
and the notebooks come from the records. A measurement that turns out otherwise takes other words.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.lab.claims.ledger import Ledger
from cliplab.lab.report.backing import SUPERSEDED, Backing, backings
from cliplab.lab.report.published import Published
from cliplab.lab.report.words import GRADES

__all__ = ["Answer", "Decision", "read_answers"]

ANSWERS = "answers.toml"
_PLACE = re.compile(r"\{(\w+)\.(\w+)\}")

_FILE = {"names": dict, "answer": list, "decision": list}
_TOLD: dict[str, type] = {"notebooks": list}
_ANSWER = {"question": str, "says": list, "figure": list, "fails": list} | _TOLD
_DECISION = {"situation": str, "advice": dict, "because": list} | _TOLD


@dataclass(frozen=True)
class Answer:
    """One question's answer: a sentence, its number, how sure it is, and where it fails.

    Where it fails are several things, the limits of the claims that it rests on among them.
    """

    number: int
    question: str
    sentence: str
    figure: str
    grade: str
    fails: tuple[str, ...]
    notebooks: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What to do in a situation, and the number that says so; empty where none does."""

    situation: str
    advice: str
    because: str
    notebooks: tuple[str, ...]


def read_answers(
    published: Published, ledger: Ledger, root: Path
) -> tuple[list[Answer], list[Decision]]:
    """Answers and decisions of what is published; both empty without ``answers.toml``.

    ``ValueError``: an outcome that has no template, or a name or number that there is not.
    """
    path = root / "notebooks" / ANSWERS
    if not path.exists():
        return [], []
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    _check(table, _FILE, (), str(path))
    writer = _Writer(backings(published, ledger, root), table.get("names", {}))
    answers = [writer.answer(n, one) for n, one in enumerate(table.get("answer", []), start=1)]
    situations = enumerate(table.get("decision", []), start=1)
    return answers, [writer.decision(n, one) for n, one in situations]


@dataclass(frozen=True)
class _Writer:
    """Fills the templates in."""

    known: Mapping[str, Backing]
    names: Mapping[str, str]

    def answer(self, number: int, table: Mapping[str, Any]) -> Answer:
        _check(table, _ANSWER, ("question", "says"), f"answer {number}")
        question = table["question"]
        where = f"answer {number} ({question})"
        for clause in table["says"]:
            _check_templates(clause, where)
        rests = [self.find(i, where) for clause in table["says"] for i in clause.get("of", ())]
        clauses = (text for clause in table["says"] for text in self.clauses(clause, where))
        return Answer(
            number,
            question,
            _sentence(clauses),
            "; ".join(self.measured(table.get("figure", ()), where)),
            _grade(one.grade for one in rests),
            (*self.measured(table.get("fails", ()), where), *self.limits(rests)),
            self.notebooks(table, rests, where),
        )

    def decision(self, number: int, table: Mapping[str, Any]) -> Decision:
        _check(table, _DECISION, ("situation", "advice"), f"decision {number}")
        situation, advice = table["situation"], table["advice"]
        where = f"decision {situation!r}"
        _check_templates(advice, where)
        rests = [self.find(i, where) for i in advice.get("of", ())]
        stand = ("not run" if one.grade == SUPERSEDED else one.outcome for one in rests)
        outcome = overall(stand) if rests else "always"
        return Decision(
            situation,
            self.fill(_template(advice, outcome, where), where),
            "; ".join(self.measured(table.get("because", ()), where)),
            self.notebooks(table, rests, where),
        )

    def clauses(self, clause: Mapping[str, Any], where: str) -> Iterator[str]:
        """A text for each outcome among a clause's claims, in the order of its templates."""
        found = [self.find(i, where) for i in clause.get("of", ())]
        outcomes = {one.outcome for one in found} or {"always"}
        for outcome in outcomes:
            _template(clause, outcome, where)
        for outcome in filter(outcomes.__contains__, clause):
            own = [self.names.get(one.id, one.id) for one in found if one.outcome == outcome]
            text = clause[outcome]
            counts = {"names": _listed(own), "n": len(own), "all": len(found)}
            for place, value in counts.items():
                text = text.replace(f"{{{place}}}", str(value))
            if text:
                yield self.fill(text, where)

    def measured(self, pieces: Iterable[str], where: str) -> Iterator[str]:
        """Those of the texts whose numbers have all been measured."""
        for piece in pieces:
            with suppress(_NotMeasured):
                yield self.fill(piece, where)

    def limits(self, rests: Sequence[Backing]) -> Iterator[str]:
        """Where the claims' answers end; claims that share a limit say it together, and first."""
        limited = [one for one in rests if one.outcome != "not run" and one.told.get("counter")]
        parts = {one.id: one.told["counter"].split("; ") for one in limited}
        every = [part for own in parts.values() for part in own]
        saying: dict[str, list[str]] = defaultdict(list)
        for name, own in parts.items():
            for part in own:
                saying[_shortest(part, every)].append(self.names.get(name, name))
        said: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for part, names in sorted(saying.items(), key=lambda item: -len(item[1])):
            said[tuple(names)].append(part)
        for together, limits in said.items():
            of = f"{_listed([*together])}: " if len(limited) > 1 else ""
            yield of + "; ".join(limits)

    def fill(self, template: str, where: str) -> str:
        """``{claim.number}`` as the records have it."""

        def told(place: re.Match[str]) -> str:
            backing, number = self.find(place[1], where), place[2]
            if not backing.told.get(number):
                known = ", ".join(name for name, text in backing.told.items() if text)
                raise _NotMeasured(f"{where}: {place[0]}, expected one of {known or 'none yet'}")
            return backing.told[number]

        return _PLACE.sub(told, template)

    def find(self, name: str, where: str) -> Backing:
        if name not in self.known:
            raise ValueError(f"{where}: nothing of record is called {name!r}")
        return self.known[name]

    def notebooks(
        self, table: Mapping[str, Any], rests: Iterable[Backing], where: str
    ) -> tuple[str, ...]:
        """Of what it rests on, then of the numbers that it tells, then those that are named."""
        texts = [*table.get("figure", ()), *table.get("because", ()), *table.get("fails", ())]
        places = [place.groups() for text in texts for place in _PLACE.finditer(text)]
        told = [one for name, n in places if (one := self.find(name, where)).told.get(n)]
        of_record = [one.notebook for one in (*rests, *told)]
        return tuple(dict.fromkeys([*of_record, *table.get("notebooks", ())]))


class _NotMeasured(ValueError):
    """A number that a template wants and the records do not have."""


def overall(outcomes: Iterable[str]) -> str:
    """One word for several answers: what was decided counts, then what was not.

    >>> overall(["no matter", "helps", "unclear"]), overall(["helps", "harms"])
    ('helps', 'mixed')
    """
    found = set(outcomes)
    if {"helps", "harms"} <= found or {"above", "below"} <= found:
        return "mixed"
    order = ("helps", "harms", "above", "below", "holds", "no matter", "unclear")
    return next((word for word in order if word in found), sorted(found)[0])


def _check(table: Any, kinds: Mapping[str, type], needed: Iterable[str], where: str) -> None:
    """Refuse what is no table, or lacks a key, or has one that is unknown or of another kind."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} = {table!r:.60}, expected a table")
    for key in needed:
        if key not in table:
            raise ValueError(f"{where}: no {key}")
    for key, value in table.items():
        if key not in kinds:
            raise ValueError(f"{where}: {key!r}, expected one of {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise ValueError(f"{where}: {key} = {value!r:.60}, expected a {kinds[key].__name__}")


def _check_templates(table: Any, where: str) -> None:
    """Refuse what is not the claims that it is ``of``, and a text for each outcome."""
    kinds = dict.fromkeys(table, str) | {"of": list} if isinstance(table, Mapping) else {}
    _check(table, kinds, (), where)


def _template(templates: Mapping[str, Any], outcome: str, where: str) -> str:
    if outcome not in templates:
        raise ValueError(f"{where}: no template for the outcome {outcome!r}")
    return str(templates[outcome])


def _shortest(part: str, every: Iterable[str]) -> str:
    """The same without its reason, where that is said elsewhere: ``with Adam, whose steps ...``."""
    return min((one for one in every if f"{part},".startswith(f"{one},")), key=len)


def _sentence(clauses: Iterable[str]) -> str:
    text = "; ".join(clauses)
    return f"{text[:1].upper()}{text[1:]}." if text else "Not measured yet."


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _grade(grades: Iterable[str]) -> str:
    """The one grade, or how many have each: ``replicated 2, decided 1``."""
    counts = Counter(grades)
    if len(counts) < 2:
        return next(iter(counts), "description")
    order = [grade for grade in ("identity", *GRADES) if grade in counts]
    return ", ".join(f"{grade} {counts[grade]}" for grade in order)
