"""The rule that turns what was measured into words: ``docs/study.md`` has it in steps."""

from __future__ import annotations

from collections.abc import Sequence

from cliplab.lab.claims.comparison import Measured
from cliplab.lab.claims.verdict import Outcome
from cliplab.lab.stats.paired import Estimate

__all__ = ["ALPHA", "decide", "multipliers"]

ALPHA = 0.05
LEFT_OUT = 0.05  # a difference of failures must be as large without one pick of each way
CONTROL = (1.0, 3.0)  # margins that the control's interval must meet


def multipliers(p_values: Sequence[float], family: int) -> list[int | None]:
    """Holm's multiplier of each comparison; None where an earlier step was not rejected.

    Comparisons of the family that were not measured count as p = 1.

    >>> multipliers([0.001, 0.4, 0.02], 5)
    [5, None, 4]
    """
    found: list[int | None] = [None] * len(p_values)
    for done, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        found[i] = family - done
        if p_values[i] * (family - done) > ALPHA:
            break
    return found


def decide(
    measured: Measured, margin: float, failure_margin: float, multiplier: int | None
) -> tuple[Outcome, str]:
    """What a user should know about the first way, and why it is not another word.

    A primary wins if it reaches its margin and 2 p x multiplier <= .05 (failures also without one
    pick of each way). *helps*: one wins, none loses, and the other is not worse: failures by less
    than their margin, or the loss by less than a margin and not wholly below 0. *harms*: the mirror
    image. *no matter*: both 90 % intervals lie inside the margins, and the control passes.
    """
    loss, failures = measured.loss, measured.failures
    sides = []
    for sign in (1, -1):
        of_loss = (
            loss is not None and _significant(loss, multiplier) and sign * loss.effect >= margin
        )
        of_failures = (
            _significant(failures, multiplier)
            and sign * failures.effect >= failure_margin
            and sign * measured.left_out >= LEFT_OUT
        )
        sides.append((of_loss, of_failures))
    wins, losses = map(any, sides)
    if wins and losses:
        return Outcome.UNCLEAR, "mixed"
    if wins or losses:
        (of_loss, of_failures), sign = (sides[0], 1) if wins else (sides[1], -1)
        if not of_loss and loss is not None and _against(loss, sign, margin):
            return Outcome.UNCLEAR, "mixed"
        if not of_failures and _end(failures, sign) <= -failure_margin:
            against = _against(failures, sign, failure_margin)
            return Outcome.UNCLEAR, "mixed" if against else "failures wide"
        if measured.edges:
            return Outcome.UNCLEAR, "edge"
        return (Outcome.HELPS if wins else Outcome.HARMS), ""
    return _not_decided(measured, margin, failure_margin, multiplier)


def _not_decided(
    measured: Measured, margin: float, failure_margin: float, multiplier: int | None
) -> tuple[Outcome, str]:
    loss, failures = measured.loss, measured.failures
    inside = loss is not None and _inside(loss, margin)
    if inside and _inside(failures, failure_margin):
        if measured.edges:
            return Outcome.UNCLEAR, "edge"
        if not control_passes(measured, margin):
            return Outcome.UNCLEAR, "control"
        return Outcome.NO_MATTER, ""
    if any(_significant(e, multiplier) for e in (loss, failures) if e is not None):
        return Outcome.UNCLEAR, "below margin"
    return Outcome.UNCLEAR, "failures wide" if inside else "loss wide"


def control_passes(measured: Measured, margin: float) -> bool:
    """Whether the handicapped rival was seen to be worse, and the handicap is of 1 to 3 margins."""
    control = measured.control
    least, most = (factor * margin for factor in CONTROL)
    return control is not None and control.low > 0 and control.low <= most and control.high >= least


def _significant(estimate: Estimate, multiplier: int | None) -> bool:
    return multiplier is not None and 2 * estimate.p * multiplier <= ALPHA


def _inside(estimate: Estimate, margin: float) -> bool:
    return -margin < estimate.low and estimate.high < margin


def _end(estimate: Estimate, sign: int) -> float:
    """The end of the interval that speaks least for the side."""
    return estimate.low if sign > 0 else -estimate.high


def _against(estimate: Estimate, sign: int, margin: float) -> bool:
    """Whether it speaks for the other side: by its margin, or with its whole interval."""
    best = estimate.high if sign > 0 else -estimate.low
    return sign * estimate.effect <= -margin or best < 0
