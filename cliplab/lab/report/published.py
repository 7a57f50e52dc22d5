"""What is published under ``records/``: rows, what is said of them, and the verdicts they give."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliplab.lab.claims.judge import judge_all
from cliplab.lab.claims.ledger import STUDIED, Ledger
from cliplab.lab.claims.verdict import DECIDED, Outcome, Verdict
from cliplab.lab.notebook.registrations import REPLICA, read_registration
from cliplab.lab.runs import register
from cliplab.lab.runs.csvrows import read_rows

__all__ = ["Published", "deviations", "holds", "load_published", "superseded"]

_NEEDED = {"question", "preset", "params", "choices", "code_key", "provenance"}


@dataclass(frozen=True)
class Published:
    """All that is published, by notebook; ``again``: the verdicts of replications, by claim."""

    about: Mapping[str, Mapping[str, Any]]
    verdicts: Mapping[str, list[Verdict]]
    registrations: Mapping[str, Mapping[str, Any]]
    again: Mapping[str, Verdict] = field(default_factory=dict)
    about_again: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def all_verdicts(self) -> Iterator[Verdict]:
        """The verdicts of all notebooks, in their order."""
        for own in self.verdicts.values():
            yield from own


def load_published(root: Path, ledger: Ledger) -> Published:
    """Read ``root/records``; ``ValueError`` for a record that is damaged."""
    rows, about = {}, {}
    for path in sorted((root / "records").glob("*.csv")):
        rows[path.stem], about[path.stem] = _read(path)
    registrations = {
        name: registration
        for name in dict.fromkeys(claim.notebook for claim in ledger.claims.values())
        if (registration := read_registration(root / "notebooks" / f"{name}.ipynb"))
    }
    first = {name: own for name, own in rows.items() if not name.endswith(REPLICA)}
    again = {name.removesuffix(REPLICA): own for name, own in rows.items() if name not in first}
    about_again = {name: about.pop(f"{name}{REPLICA}") for name in again}
    verdicts: dict[str, list[Verdict]] = {name: [] for name in first}
    # A notebook that has claims and no record yet is told, too: its claims are withdrawn or wait.
    waiting: dict[str, list[dict[str, Any]]] = {
        c.notebook: [] for c in ledger.claims.values() if c.notebook not in first
    }
    for verdict in judge_all({**first, **waiting}, "verdict", ledger, _studies(about)):
        verdicts.setdefault(verdict.notebook, []).append(verdict)
    repeated = judge_all(again, "replica", ledger, _studies(about_again))
    return Published(
        about,
        verdicts,
        registrations,
        {verdict.id: verdict for verdict in repeated if verdict.kind in STUDIED},
        about_again,
    )


def _studies(abouts: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {name: about["choices"].get("studies", {}) for name, about in abouts.items()}


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a published record, and the rest of it from the JSON file beside it."""
    try:
        rows = read_rows(path.read_text(encoding="utf-8"))
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if not isinstance(about, dict) or not about.keys() >= _NEEDED:
            raise ValueError(f"expected {', '.join(sorted(_NEEDED))}")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"damaged record {path.with_suffix('')}: {error}") from None
    return rows, about


def superseded(about: Mapping[str, Any] | None) -> bool:
    """Whether a record's answers stand no longer: its code was mended, its run is pending."""
    return bool(about and about.get("pending"))


def deviations(published: Published, ledger: Ledger, verdict: Verdict) -> list[str]:
    """Where a study's answer is not, word for word, what was registered of it."""
    registration = published.registrations.get(verdict.notebook)
    if registration is None:
        return ["not registered"]
    wanted = {"claims": {verdict.id: registration["claims"].get(verdict.id)}}
    claims = {verdict.id: ledger.claims[verdict.id].registered()}
    about = published.about.get(verdict.notebook)
    if about is None or about.get("registration") != registration["hash"]:
        other = ["its record is of another registration"] if about else []
        return [*other, *register.differences(wanted, {"claims": claims})]
    found = register.deviations({**registration, **wanted}, claims, about)
    return [*found, *register.differences(registration["family"], ledger.family, "family")]


def holds(first: Verdict, again: Verdict | None) -> str:
    """What a replication says of a verdict: holds, does not hold, or nothing that was decided.

    A decided verdict holds if the same study on other seeds and draws gives the same word, or for
    helps and harms, short of it, a 90 % interval of loss or failures on that side of 0 and none on
    the other.
    """
    if again is None:
        return ""
    if first.outcome not in DECIDED or again.outcome is Outcome.NOT_RUN:
        return f"again: {again.verdict}"
    if again.outcome is first.outcome:
        return "holds"
    if first.outcome is Outcome.NO_MATTER:
        return f"does not hold: {again.verdict}"
    sign = 1 if first.outcome is Outcome.HELPS else -1
    intervals = [e for e in (again.loss, again.failures) if e is not None]
    ends = [(e.low, e.high) if sign > 0 else (-e.high, -e.low) for e in intervals]
    same = any(low > 0 for low, _ in ends) and not any(high < 0 for _, high in ends)
    return f"holds, less surely: {again.verdict}" if same else f"does not hold: {again.verdict}"
