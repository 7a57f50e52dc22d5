"""Judge claims by rows: the preview of a notebook, and the verdicts of record of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cliplab.lab.claims.comparison import Measured
from cliplab.lab.claims.ledger import MOST_SEEDS, STUDIED, Claim, Ledger, load_ledger
from cliplab.lab.claims.rule import decide, multipliers
from cliplab.lab.claims.studied import MissingRowsError, measured_of
from cliplab.lab.claims.verdict import Outcome, Verdict
from cliplab.lab.stats.paired import Estimate, holm, paired
from cliplab.lab.stats.shares import difference_interval, wilson
from cliplab.lab.study.size import Size

if TYPE_CHECKING:
    from cliplab.lab.study.study import Study

__all__ = ["judge", "judge_all", "unanswered"]

Row = Mapping[str, Any]
About = Mapping[str, Any]  # Study.about()
WITHOUT_VERDICT = ("smoke", "fingerprint", "pilot")  # presets too short for one


def judge(
    claim: str | Claim, rows: Iterable[Row], study: Study | Sequence[Study] | None = None
) -> Verdict:
    """The verdict of one claim on ``rows`` (dicts or a DataFrame): a preview, alone in its family.

    An id is looked up in the claims.toml beside the running notebook. With the ``study`` (or the
    studies of its folds), edges of its space are looked at, and the usable range is in decades.
    Rows of other studies and arms are ignored; none of its own (other parameters were asked for) is
    "not run". ``ValueError``: a run is missing or there twice, or a metric is not a finite number.

    Args:
        claim: its id, or the claim itself.
        rows: recorded rows, one a run.
        study: of the comparison or estimate, or those of its folds; None for other kinds.
    """
    ledger = load_ledger() if isinstance(claim, str) else Ledger({claim.id: claim}, 1)
    if isinstance(claim, str):
        if claim not in ledger.claims:
            raise ValueError(f"claim {claim!r}, expected one of {', '.join(ledger.claims)}")
        claim = ledger.claims[claim]
    given = study if isinstance(study, Sequence) else [study] if study else []
    studies = {one.name: one.about() for one in given}
    try:
        return _verdict(claim, _as_list(rows), studies, ledger.family)
    except MissingRowsError as error:
        return _base(claim, Outcome.NOT_RUN, note=str(error))


def judge_all(
    rows_by_notebook: Mapping[str, Iterable[Row]],
    preset: str,
    ledger: Ledger,
    studies: Mapping[str, Mapping[str, About]] | None = None,
) -> list[Verdict]:
    """The verdicts of record: every claim whose notebook is there, with Holm over the family.

    ``studies``: what each notebook's studies are, by their names. A claim that its rows cannot
    answer is "not run", with the error as its note. The presets smoke, fingerprint and pilot
    measure, but give no verdict; withdrawn claims are listed as they are.
    """
    claims = [c for c in ledger.claims.values() if c.notebook in rows_by_notebook]
    rows = {name: _as_list(own) for name, own in rows_by_notebook.items()}
    measured: dict[str, Measured] = {}
    sizes: dict[str, Size] = {}
    verdicts: dict[str, Verdict] = {}
    for claim in claims:
        about = (studies or {}).get(claim.notebook, {})
        try:
            if claim.kind in STUDIED:
                measured[claim.id], sizes[claim.id] = measured_of(
                    claim, rows[claim.notebook], about
                )
            else:
                verdicts[claim.id] = _verdict(claim, rows[claim.notebook], about, ledger.family)
        except (ValueError, OverflowError) as error:
            verdicts[claim.id] = _base(claim, Outcome.NOT_RUN, note=str(error))
    family = {name: m.p for name, m in measured.items() if ledger.claims[name].kind == "comparison"}
    steps = _steps(family, ledger.family)
    for name, found in measured.items():
        step = steps.get(name) or _steps({name: found.p}, ledger.family)[name]
        verdicts[name] = _told(ledger.claims[name], found, sizes[name], *step)
    ordered = [verdicts[claim.id] for claim in claims]
    if preset in WITHOUT_VERDICT:
        return [_withheld(verdict, preset) for verdict in ordered]
    return ordered


def _steps(
    p_values: Mapping[str, float], family: int
) -> dict[str, tuple[int | None, float | None]]:
    """Holm's multiplier of each comparison, and its p after the correction."""
    p = list(p_values.values())
    corrected = holm([*p, *[1.0] * (family - len(p))])[: len(p)]
    return dict(zip(p_values, zip(multipliers(p, family), corrected, strict=True), strict=True))


def unanswered(
    rows: Iterable[Row], notebook: str, ledger: Ledger, studies: Mapping[str, About]
) -> list[str]:
    """What is missing in a notebook's rows for each of its claims that they cannot answer."""
    verdicts = judge_all({notebook: rows}, "fingerprint", ledger, {notebook: studies})
    return [v.note for v in verdicts if v.outcome is Outcome.NOT_RUN]


def _withheld(verdict: Verdict, preset: str) -> Verdict:
    if verdict.outcome in (Outcome.NOT_RUN, Outcome.WITHDRAWN):
        return verdict
    return replace(verdict, outcome=Outcome.NO_VERDICT, reason=preset)


def _as_list(rows: Any) -> list[Row]:
    return list(rows.to_dict("records")) if hasattr(rows, "to_dict") else list(rows)


def _verdict(claim: Claim, rows: list[Row], studies: Mapping[str, About], family: int) -> Verdict:
    if claim.kind == "withdrawn":
        return _base(claim, Outcome.WITHDRAWN, reason="being redone")
    if claim.kind == "identity":
        return _identity(claim, rows)
    if claim.kind == "share":
        return _share(claim, rows)
    if claim.kind == "demonstration":
        return _demonstration(claim, rows)
    measured, size = measured_of(claim, rows, studies)
    return _told(claim, measured, size, *_steps({claim.id: measured.p}, family)[claim.id])


def _told(
    claim: Claim, measured: Measured, size: Size, multiplier: int | None, p_holm: float | None
) -> Verdict:
    outcome, reason = decide(measured, claim.margin, claim.failure_margin, multiplier)
    if claim.kind == "estimate":
        outcome, reason, p_holm = Outcome.SHOWN, "", None
    decades = "decades of lr" if measured.levels.get("decades") else "of configurations"
    return _base(
        claim,
        outcome,
        reason=reason,
        loss=measured.loss,
        failures=measured.failures,
        control=measured.control,
        usable=measured.usable,
        usable_unit=decades,
        levels=measured.levels,
        p_holm=p_holm,
        small=not size.decides,
        note="; ".join([*measured.edges, *measured.notes]),
    )


def _identity(claim: Claim, rows: list[Row]) -> Verdict:
    arms = _arms(claim, claim.arms, rows)
    wrong = [
        f"{arm} (seed {row['seed']})"
        for arm, own in arms.items()
        for row in own
        if not _boolean(claim, row)
    ]
    n = sum(map(len, arms.values()))
    note = f"false in {len(wrong)} of {n}: {', '.join(wrong)}" if wrong else f"in all {n} rows"
    return _base(claim, Outcome.FAILS if wrong else Outcome.HOLDS, note=note)


def _share(claim: Claim, rows: list[Row]) -> Verdict:
    """How often a column is true, with its interval over rows; None: a row that is not asked."""
    arms = _arms(claim, claim.arms, rows)
    asked = [row for own in arms.values() for row in own if row.get(claim.metric) is not None]
    x, n = sum(_boolean(claim, row) for row in asked), len(asked)
    estimate = Estimate(x / n, *wilson(x, n), 1.0, n) if n else None
    return _base(claim, Outcome.SHOWN, loss=estimate, note=f"{x} of {n} {claim.unit}")


def _demonstration(claim: Claim, rows: list[Row]) -> Verdict:
    """Two arms by seed: the paired interval of a number, the interval of a share, no verdict."""
    arms = _arms(claim, (claim.first, claim.rival), rows)
    seeds = [{row["seed"]: row for row in own} for own in arms.values()]
    if seeds[0].keys() != seeds[1].keys():
        odd = sorted(seeds[0].keys() ^ seeds[1].keys())
        raise ValueError(f"claim {claim.id}: seeds {odd} are in one arm only")
    n = len(seeds[0])
    if n > MOST_SEEDS:
        raise ValueError(f"claim {claim.id}: {n} seeds, a demonstration has {MOST_SEEDS} at most")
    first, rival = (np.array([_value(claim, own[seed]) for seed in sorted(own)]) for own in seeds)
    sign = 1 if claim.better == "higher" else -1
    if all(_is_boolean(row.get(claim.metric)) for own in seeds for row in own.values()):
        x, y = int(first.sum()), int(rival.sum())
        low, high = difference_interval(x, n, y, n)
        ends = (low, high) if sign > 0 else (-high, -low)
        estimate = Estimate(sign * (x - y) / n, *ends, 1.0, n)
        note = f"{claim.first}: {x} of {n}, {claim.rival}: {y} of {n}"
    else:
        estimate = paired(sign * (first - rival))
        lost = [sum(row.get("diverged") is True for row in own.values()) for own in seeds]
        note = f"diverged: {lost[0]} of {n} and {lost[1]} of {n}" if any(lost) else ""
    return _base(claim, Outcome.SHOWN, loss=estimate, note=note)


def _arms(claim: Claim, names: Sequence[str], rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {name: [] for name in names}
    for row in rows:
        if row["arm"] in found:
            found[row["arm"]].append(row)
    if missing := [name for name, own in found.items() if not own]:
        raise MissingRowsError(f"claim {claim.id}: no rows of {', '.join(map(repr, missing))}")
    for name, own in found.items():
        if len({row["seed"] for row in own}) < len(own):
            raise ValueError(f"claim {claim.id}: arm {name!r} has a seed twice")
    return found


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _boolean(claim: Claim, row: Row) -> bool:
    value: Any = row.get(claim.metric)
    if not _is_boolean(value):
        raise ValueError(_bad(claim, row, value, "true or false"))
    return bool(value)


def _value(claim: Claim, row: Row) -> float:
    value: Any = row.get(claim.metric)
    if not isinstance(value, int | float | np.number | np.bool_) or not math.isfinite(value):
        raise ValueError(_bad(claim, row, value, "a finite number"))
    return float(value)


def _bad(claim: Claim, row: Row, value: Any, expected: str) -> str:
    where = f"arm {row['arm']!r}, seed {row['seed']}"
    return f"claim {claim.id}: {claim.metric} = {value!r} ({where}), expected {expected}"


def _base(claim: Claim, outcome: Outcome, **measured: Any) -> Verdict:
    compared = claim.kind in STUDIED
    return Verdict(
        id=claim.id,
        kind=claim.kind,
        statement=claim.text,
        notebook=claim.notebook,
        outcome=outcome,
        first=claim.first,
        rival=claim.rival,
        handicap=claim.control,
        margin=claim.margin if compared else None,
        failure_margin=claim.failure_margin if compared else None,
        unit="" if claim.kind == "share" else claim.unit,  # its note says of what
        **measured,
    )
