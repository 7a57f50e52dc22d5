"""How far the verdicts can be trusted: whole simulated ledgers through the code that judges."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cliplab.lab.claims.ledger import Claim
from cliplab.lab.claims.rule import judge_all
from cliplab.lab.claims.verdict import Outcome
from cliplab.lab.runs.canonical import form
from cliplab.lab.runs.closure import closure_of
from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.keys import digest
from cliplab.lab.runs.versions import versions

__all__ = ["Calibration", "calibrate", "kept_lines"]

# Each claim's differences have a spread of one margin, and one kind of noise. A quarter of the
# diverging runs score as chance, 10 margins away, in either arm.
KINDS = ("gaussian", "heavy-tailed", "diverging", "success share")
SHARE_MARGIN = 0.25
CHANCE = 10.0


@dataclass(frozen=True)
class Calibration:
    """Rates over simulated ledgers; those by kind of noise are per claim (see KINDS)."""

    n: int
    claims: int  # of a ledger, Holm counts them all
    ledgers: int
    false_verdict: Mapping[str, float]  # no effect, yet supported or refuted
    false_verdict_ledger: float  # at least one such claim in a ledger
    false_equivalent: Mapping[str, float]  # an effect of exactly the margin, yet equivalent
    wrong_sign: Mapping[str, float]  # an effect of twice the margin, yet refuted
    power: Mapping[str, float]  # an effect of twice the margin: supported
    power_equivalent: Mapping[str, float]  # no effect: equivalent

    def lines(self) -> list[str]:
        """One sentence a rate."""

        def by_kind(rates: Mapping[str, float]) -> str:
            return ", ".join(f"{kind} {rate:.1%}" for kind, rate in rates.items())

        return [
            f"Simulated ledgers of {self.claims} claims at n = {self.n} "
            f"({_share_n(self.n)} for success shares), noise of one margin, "
            f"{self.ledgers} ledgers for each size of the effect.",
            f"No effect, yet supported or refuted: {by_kind(self.false_verdict)} of claims; "
            f"at least one in {self.false_verdict_ledger:.1%} of ledgers.",
            "An effect of exactly the margin, yet equivalent: "
            f"{by_kind(self.false_equivalent)} of claims.",
            f"An effect of twice the margin, yet refuted: {by_kind(self.wrong_sign)} of claims.",
            f"Power to support an effect of twice the margin: {by_kind(self.power)}.",
            f"Power to find no effect equivalent: {by_kind(self.power_equivalent)}.",
        ]


@lru_cache
def calibrate(claims: int, n: int = 12, simulations: int = 100, seed: int = 0) -> Calibration:
    """Simulate A/A ledgers and ledgers with planted effects of one and two margins, and judge them.

    Seeded and cached; a few seconds. A quarter of the claims are of each kind: with m of them in
    all ledgers, a rate r over a kind has a standard error of sqrt(r (1 - r) / m).
    """
    rng = np.random.default_rng(seed)
    ledger = {f"{i}": _claim(f"{i}", KINDS[i % len(KINDS)], n) for i in range(claims)}
    none, once, twice = (
        [_outcomes(ledger, margins, rng) for _ in range(simulations)] for margins in (0, 1, 2)
    )
    false = {Outcome.SUPPORTED, Outcome.REFUTED}
    return Calibration(
        n=n,
        claims=claims,
        ledgers=simulations,
        false_verdict=_rates(none, false),
        false_verdict_ledger=float(np.mean([not false.isdisjoint(v) for v in none])),
        false_equivalent=_rates(once, {Outcome.EQUIVALENT}),
        wrong_sign=_rates(twice, {Outcome.REFUTED}),
        power=_rates(twice, {Outcome.SUPPORTED}),
        power_equivalent=_rates(none, {Outcome.EQUIVALENT}),
    )


def kept_lines(path: Path, claims: int) -> list[str]:
    """The sentences of :func:`calibrate`, kept in a file until the code that judges changes."""
    code = closure_of(form(f"import {__name__}", ""), telling=True)
    key = digest([code.key, claims, versions(code.outside)])
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["key"] == key:
            return [str(line) for line in kept["lines"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or damaged
    lines = calibrate(claims).lines()
    write_atomic(path, json.dumps({"key": key, "lines": lines}, indent=1) + "\n")
    return lines


def _share_n(n: int) -> int:
    """Shares are coarse: where other claims have 12 seeds, the ledger asks for 16 of them."""
    return n * 4 // 3


def _claim(claim_id: str, kind: str, n: int) -> Claim:
    share = kind == "success share"
    return Claim(
        id=claim_id,
        statement=kind,
        notebook=claim_id,
        kind="statistical",
        test="mcnemar" if share else "paired",
        metric="score",
        better="higher",
        contrast={"a": 1, "b": -1},
        margin=SHARE_MARGIN if share else 1.0,
        margin_reason="simulated",
        unit="share" if share else "margins",
        n=_share_n(n) if share else n,
        source="simulated",
        counter="simulated",
        expected="supported",
        baseline=0.0 if share else -CHANCE,
        control={"control": 1, "control / 100": -1},
    )


def _outcomes(ledger: Mapping[str, Claim], margins: int, rng: np.random.Generator) -> list[Outcome]:
    rows = {claim.notebook: _rows(claim, margins, rng) for claim in ledger.values()}
    return [verdict.outcome for verdict in judge_all(rows, "verdict", ledger)]


def _rows(claim: Claim, margins: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Two arms that share what a seed shares, and the arms of a control that is always detected."""
    n = claim.n
    if claim.test == "mcnemar":  # each seed: one draw for both arms, or one each
        draws = rng.random(n)
        other = np.where(rng.random(n) < 0.5, draws, rng.random(n))
        a, b = draws < 0.4 + margins * SHARE_MARGIN, other < 0.4
        control = np.ones(n, dtype=bool)
    else:
        noise = rng.standard_t(3, (2, n)) if claim.statement == "heavy-tailed" else None
        noise = rng.normal(size=(2, n)) if noise is None else noise / np.sqrt(3)
        a, b = noise / np.sqrt(2) + rng.normal(size=n)
        a, control = a + margins, np.full(n, 5.0)
        if claim.statement == "diverging":
            a, b = np.where(rng.random((2, n)) < 0.25, -CHANCE, [a, b])
    scores = {"a": a, "b": b, "control": control, "control / 100": np.zeros_like(control)}
    return [
        {"arm": arm, "seed": seed, "score": score}
        for arm, column in scores.items()
        for seed, score in enumerate(column.tolist())
    ]


def _rates(ledgers: list[list[Outcome]], wanted: set[Outcome]) -> dict[str, float]:
    hits = np.array([[outcome in wanted for outcome in outcomes] for outcomes in ledgers])
    kinds = KINDS[: hits.shape[1]]  # fewer than there are, in a ledger of one claim
    return {kind: float(hits[:, i :: len(KINDS)].mean()) for i, kind in enumerate(kinds)}
