"""The rule that turns the rows of a run into the verdict of a claim."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cliplab.lab.claims.ledger import Claim, load_ledger
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.stats.paired import Estimate, holm, mcnemar, paired

__all__ = ["judge", "judge_all"]

Row = Mapping[str, Any]
Arms = dict[str, list[Row]]  # the rows of every arm of a contrast, seed by seed
ALPHA = 0.05
WITHOUT_VERDICT = ("smoke", "fingerprint")  # presets too short for one


def judge(claim: str | Claim, rows: Iterable[Row]) -> Verdict:
    """The verdict of one claim on `rows` (dicts or a DataFrame): a preview, without Holm.

    An id is looked up in the claims.toml beside the running notebook.
    Rows of other arms are ignored; a missing arm (other parameters were asked for) is "not run".
    ValueError: a seed is missing in one arm or there twice, or a metric is not a finite number
    (score a diverged run as chance).
    """
    if isinstance(claim, str):
        ledger = load_ledger()
        if claim not in ledger:
            raise ValueError(f"claim {claim!r}, expected one of {', '.join(ledger)}")
        claim = ledger[claim]
    try:
        measured = _measure(claim, rows)
    except MissingArmsError as error:
        return _base(claim, Outcome.NOT_RUN, note=str(error))
    return _verdict(claim, measured, measured.estimate.p if measured.estimate else None)


def judge_all(
    rows_by_notebook: Mapping[str, Iterable[Row]], preset: str, ledger: Mapping[str, Claim]
) -> list[Verdict]:
    """The verdicts of record: every claim whose notebook is there, with Holm over the ledger.

    A claim that its rows cannot answer (an arm is missing, seeds are not paired, ...) is
    "not run", with the error as its note. The presets smoke and fingerprint measure, but give no
    verdict.
    """
    claims = [claim for claim in ledger.values() if claim.notebook in rows_by_notebook]
    measured: dict[str, _Measured] = {}
    not_run: dict[str, str] = {}
    for claim in claims:
        try:
            measured[claim.id] = _measure(claim, rows_by_notebook[claim.notebook])
        except (ValueError, OverflowError) as error:
            not_run[claim.id] = str(error)
    p_values = [m.estimate.p if m.estimate else None for m in measured.values()]
    # The family is the whole ledger: what was not measured today counts as p = 1, so that a
    # notebook judged alone is not judged more mildly.
    statistical = sum(claim.kind == "statistical" for claim in ledger.values())
    others = [1.0] * (statistical - sum(p is not None for p in p_values))
    p_holm = dict(zip(measured, holm([*p_values, *others]), strict=False))
    verdicts = []
    for claim in claims:
        if claim.id in not_run:
            verdicts.append(_base(claim, Outcome.NOT_RUN, note=not_run[claim.id]))
            continue
        verdict = _verdict(claim, measured[claim.id], p_holm[claim.id])
        if preset in WITHOUT_VERDICT:
            verdict = replace(verdict, outcome=Outcome.NO_VERDICT, reason=preset)
        verdicts.append(replace(verdict, p_holm=p_holm[claim.id]))
    return verdicts


class MissingArmsError(ValueError):
    """The rows hold none of some arm of the claim."""


@dataclass(frozen=True)
class _Measured:
    """What the rows of one claim hold, before any verdict."""

    n: int
    estimate: Estimate | None = None  # None: an exact claim
    failures: tuple[str, ...] = ()  # rows in which an exact claim does not hold
    not_equivalent: str = ""  # why no interval may earn `equivalent`
    notes: tuple[str, ...] = ()


def _measure(claim: Claim, rows: Any) -> _Measured:
    rows = rows.to_dict("records") if hasattr(rows, "to_dict") else list(rows)
    arms = _arms(claim, claim.contrast, rows)
    n = len(next(iter(arms.values())))
    lost = {arm: sum(row.get("diverged") in (True,) for row in arms[arm]) for arm in arms}
    notes = tuple(f"diverged {k}/{n} in {arm}" for arm, k in lost.items() if k)
    if claim.kind == "exact":
        failures = [
            f"{arm} (seed {row['seed']})"
            for arm in arms
            for row in arms[arm]
            if not _value(claim, row)
        ]
        return _Measured(n, failures=tuple(failures), notes=notes)
    estimate = _estimate(claim, claim.contrast, arms)
    return _Measured(n, estimate, (), _why_not_equivalent(claim, arms, rows), notes)


def _arms(claim: Claim, contrast: Mapping[str, float], rows: list[Row]) -> Arms:
    by_seed: dict[str, dict[int, Row]] = {arm: {} for arm in contrast}
    for row in rows:
        arm, seed = row["arm"], row["seed"]
        if arm in by_seed:
            if seed in by_seed[arm]:
                raise ValueError(f"claim {claim.id}: arm {arm!r} has seed {seed} twice")
            by_seed[arm][seed] = row
    missing = [arm for arm, found in by_seed.items() if not found]
    if missing:
        raise MissingArmsError(f"claim {claim.id}: no rows of {', '.join(map(repr, missing))}")
    seeds = sorted(set().union(*by_seed.values()))
    for arm, found in by_seed.items():
        lacking = [seed for seed in seeds if seed not in found]
        if lacking:
            raise ValueError(f"claim {claim.id}: arm {arm!r} lacks seeds {lacking} of other arms")
    return {arm: [found[seed] for seed in seeds] for arm, found in by_seed.items()}


def _value(claim: Claim, row: Row) -> float:
    value: Any = row.get(claim.metric)
    boolean = isinstance(value, (bool, np.bool_))
    ok = boolean or (claim.test == "paired" and _is_finite(value))
    if not ok:
        expected = "a finite number" if claim.test == "paired" else "true or false"
        where = f"arm {row['arm']!r}, seed {row['seed']}"
        raise ValueError(f"claim {claim.id}: {claim.metric} = {value!r} ({where}), want {expected}")
    return float(value)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def _estimate(claim: Claim, contrast: Mapping[str, float], arms: Arms) -> Estimate:
    sign = -1 if claim.better == "lower" else 1
    values = {arm: np.array([_value(claim, row) for row in arms[arm]]) for arm in contrast}
    if claim.test == "mcnemar":
        second, first = sorted(contrast, key=lambda arm: sign * contrast[arm])
        return mcnemar(values[first] > 0, values[second] > 0)
    weighted = zip(*(sign * weight * values[arm] for arm, weight in contrast.items()), strict=True)
    return paired([math.fsum(terms) for terms in weighted])  # fsum: equal arms give exactly 0


def _why_not_equivalent(claim: Claim, arms: Arms, rows: list[Row]) -> str:
    """Finding no difference means something only if these arms learned and a difference shows."""
    if claim.baseline is None or claim.control is None or claim.margin is None:
        return "no baseline and positive control are registered"
    sign = -1 if claim.better == "lower" else 1
    for arm in arms:
        mean = float(np.mean([_value(claim, row) for row in arms[arm]]))
        if sign * mean <= sign * claim.baseline:
            return f"{arm} ({mean:.3g}) does not beat the baseline {claim.baseline:g}"
    missing = claim.control.keys() - {row["arm"] for row in rows}
    if missing:
        return f"the positive control was not run ({', '.join(sorted(missing))})"
    control = _estimate(claim, claim.control, _arms(claim, claim.control, rows))
    if control.p >= ALPHA or abs(control.effect) < claim.margin:
        return f"positive control not detected ({control.effect:+.3g}, p = {control.p:.2g})"
    return ""


def _verdict(claim: Claim, measured: _Measured, p: float | None) -> Verdict:
    outcome, reason, why = _rule(claim, measured, p)
    note = "; ".join(filter(None, [why, *measured.notes]))
    verdict = _base(claim, outcome, reason=reason, n=measured.n, note=note)
    if (e := measured.estimate) is None:
        return verdict
    low, high = (end if math.isfinite(end) else None for end in (e.low, e.high))
    return replace(verdict, effect=e.effect, low=low, high=high, p=e.p)


def _rule(claim: Claim, measured: _Measured, p: float | None) -> tuple[Outcome, str, str]:
    """The outcome, its reason, and what to add in a note."""
    if measured.failures:
        false = f"{len(measured.failures)} false: {', '.join(measured.failures)}"
        return Outcome.REFUTED, "", false
    if measured.n < claim.n:
        return Outcome.INCONCLUSIVE, f"n={measured.n}", f"{claim.n} seeds are registered"
    e, margin = measured.estimate, claim.margin
    if e is None or margin is None or p is None:
        return Outcome.SUPPORTED, "", ""
    if -margin < e.low and e.high < margin:
        if measured.not_equivalent:
            return Outcome.INCONCLUSIVE, "", f"not equivalent: {measured.not_equivalent}"
        return Outcome.EQUIVALENT, "", ""
    if e.low > 0 and e.effect >= margin and p < ALPHA:
        return Outcome.SUPPORTED, "", ""
    if e.high < 0 and e.effect <= -margin and p < ALPHA:
        return Outcome.REFUTED, "", ""
    return Outcome.INCONCLUSIVE, "", ""


def _base(claim: Claim, outcome: Outcome, **measured: Any) -> Verdict:
    return Verdict(
        id=claim.id,
        statement=claim.statement,
        notebook=claim.notebook,
        kind=claim.kind,
        outcome=outcome,
        margin=claim.margin,
        unit=claim.unit,
        **measured,
    )
