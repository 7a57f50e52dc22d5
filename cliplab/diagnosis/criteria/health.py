"""Is the record usable: finite, taken, and long enough?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from cliplab.diagnosis.criteria.naming import named
from cliplab.diagnosis.criteria.series import MIN_SPIKES, MIN_STEPS, MIN_TREND
from cliplab.diagnosis.findings import Finding
from cliplab.diagnosis.record import Record

WALL = 17  # one more halving than a GradScaler needs from 2^16 to 1
STUCK = 3  # non-finite steps at the end: the weights themselves are not finite
GROWN = 10.0  # times the median: the norm had grown before the wall
SKIPPED = 0.05  # of the steps: data and time are lost, and
OFTEN = 0.5  # of them: most are


def find_nonfinite(record: Record) -> Iterator[Finding]:
    """Steps that are not finite: some, or a wall of them."""
    bad = ~record.fine
    count = int(bad.sum())
    if not count:
        return
    longest, begin, at_end = _runs(bad)
    parts = ~record.norms.isfinite()
    first = int(bad.nonzero()[0])
    names = named(record, parts[first])
    evidence: dict[str, float] = {
        "count": count,
        "longest": longest,
        "first_step": int(record.numbers[first]),
    }
    where = f", first in {names}" if names else ""
    if longest >= WALL or (at_end >= STUCK and count < len(bad)):
        before = record.total[:begin][record.fine[:begin]]
        rise = float(before[-1] / before.median()) if len(before) else math.nan
        evidence |= {"begin": int(record.numbers[begin]), "rise_before": rise}
        how = "The norm had grown before: " if rise > GROWN else "It came without warning: "
        cause = (
            "lower the learning rate or the threshold"
            if rise > GROWN
            else "look at the data of that step and at log, sqrt and divisions in the loss"
        )
        yield Finding(
            "non-finite wall",
            "critical",
            f"{longest} steps in a row are not finite, from step {evidence['begin']} on "
            f"({count} of {len(bad)} in all{where})",
            f"{how}{cause}. Clipping cannot mend weights that are not finite: go back to a "
            'checkpoint, and use nonfinite="skip" so that one bad step does not reach them.',
            evidence,
        )
    else:
        yield Finding(
            "non-finite steps",
            "info" if bool(record.skipped[bad].all()) else "warning",
            f"{count} of {len(bad)} steps are not finite, at most {longest} in a row, the first "
            f"at step {evidence['first_step']}{where}",
            "Under a GradScaler a few at the start and one every some thousand steps are normal. "
            'Otherwise look at the data of these steps; nonfinite="skip" leaves them out.',
            evidence,
        )


def _runs(flags: Tensor) -> tuple[int, int, int]:
    """Return the longest run of true flags, where it begins, and the run at the end."""
    longest = begin = now = 0
    for i, flag in enumerate(flags.tolist()):
        now = now + 1 if flag else 0
        if now > longest:
            longest, begin = now, i - now + 1
    return longest, begin, now


def find_skipped(record: Record) -> Iterator[Finding]:
    """Finite steps that were left out."""
    skipped = record.skipped.any(dim=1) & record.fine
    share = float(skipped.double().mean()) if len(skipped) >= MIN_STEPS else 0.0
    if share >= SKIPPED:
        yield Finding(
            "many skipped steps",
            "critical" if share >= OFTEN else "warning",
            f"{share:.0%} of the steps had a finite gradient and were skipped",
            'Raise the threshold, or rescale instead (mode="rescale"): skipping is for rare '
            "outliers; what is skipped is not learnt.",
            {"share": share, "count": int(skipped.sum())},
        )


def find_too_short(record: Record) -> Iterator[Finding]:
    """What there are too few steps to say."""
    steps = int(record.fine.sum())
    needs = {"a clip frequency": MIN_STEPS, "spikes": MIN_SPIKES, "a trend": MIN_TREND}
    missing = [f"{what} ({need})" for what, need in needs.items() if steps < need]
    if missing:
        yield Finding(
            "too short",
            "info",
            f"{steps} finite steps are too few to judge {', '.join(missing)}",
            "Record more steps before changing anything.",
            {"steps": steps},
        )
