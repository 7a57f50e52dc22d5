"""Was it clipped in the right place: before the step, only once, after the sum over ranks?

Seen in one history: norms that end at a wall (clipped before they were measured), and updates of
plain SGD that follow the norms before clipping (clipped after the step). Under momentum or Adam an
update follows no single norm, and that a history is of local gradients (of one rank, or of one
micro-batch) cannot be seen in it: they are larger than their mean, and nothing there says what the
mean is. Of ranks the histories together tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from cliplab.diagnosis.criteria.series import MIN_STEPS, range_of
from cliplab.diagnosis.findings import Finding
from cliplab.diagnosis.record import Record
from cliplab.history import quantiles

SAME = 5e-4  # relative: what rounding makes of a norm, of few entries in half precision, too
NEAR = 2e-3  # relative: where norms that nobody clipped would lie as well, at least twice as many
WALL = 0.05  # of the steps at the largest norm, at least
FEWEST = 10  # of them, and at least
ALONE = 0.8  # of those near it
TIED = 0.01  # range of log(update / norm) over clipped steps: the update follows the norm
APART = math.log(2)  # range of log factor over them: else the two norms cannot be told apart
DIFFER = 1e-3  # relative: ranks that hold the same gradient differ by rounding
OFTEN = 0.01  # of the steps


def find_clipped_before(record: Record) -> Iterator[Finding]:
    """Norms that end at a wall: none is larger, and many are just as large."""
    norms = record.total[record.fine & (record.total > 0)]
    if record.of_updates or len(norms) < MIN_STEPS:
        return
    wall = float(norms.max())
    count = int((norms >= wall * (1 - SAME)).sum())
    near = int((norms >= wall * (1 - NEAR)).sum())
    if count < max(FEWEST, WALL * len(norms)) or count < ALONE * near:
        return
    limit = quantiles(record.limits[record.fine].flatten(), (0.5,))[0]
    own = f", the threshold here is {limit:.3g}" if math.isfinite(limit) else ""
    yield Finding(
        "clipped before",
        "warning",
        f"{count} of {len(norms)} norms are {wall:.4g}, and none is larger{own}",
        "Somebody clips at this norm before it is measured (a trainer's own setting, such as "
        "max_grad_norm or gradient_clip_val), or what is recorded are norms after clipping: "
        "turn one of the two off, and record the norm before. If all norms are the same, gradients "
        "may also be normalised, or constant.",
        {"wall": wall, "count": count, "share": count / len(norms), "threshold": limit},
    )


def find_clipped_after(record: Record) -> Iterator[Finding]:
    """Updates of plain SGD that are as long as if nothing had been clipped."""
    clipped = record.shortened.any(dim=1) & record.fine & (record.after > 0)
    used = clipped & (record.updates > 0)
    if record.of_updates or int(used.sum()) < FEWEST:
        return
    factors = (record.after / record.total)[used].log()
    ratios = (record.updates / record.total)[used].log()
    tied, apart = range_of(ratios), range_of(factors)
    if not (tied <= TIED and apart >= APART):
        return
    count = int(used.sum())
    ratio, shrunk = math.exp(float(ratios.median())), math.exp(float(factors.median()))
    yield Finding(
        "clipped after the step",
        "critical",
        f"at {count} clipped steps the update over the rate is {ratio:.3g} x the norm before "
        f"clipping (to {math.expm1(tied):.1%}), though clipping should have shortened it to "
        f"{shrunk:.3g} of that (median)",
        "The optimizer has stepped on the gradient as it was: clip between backward() and step(), "
        "as clipper.attach(optimizer) does.",
        {"count": count, "update_by_norm": ratio, "range": tied, "factor": shrunk},
    )


def find_ranks_apart(records: Sequence[Record]) -> Iterator[Finding]:
    """Ranks of one run that measured different gradients."""
    totals = torch.stack([record.total for record in records])
    finite = totals.isfinite()
    low, high = totals.amin(dim=0), totals.amax(dim=0)
    apart = (high - low > DIFFER * high) | (finite.any(dim=0) & ~finite.all(dim=0))
    share = float(apart.double().mean()) if len(apart) else 0.0
    if share <= OFTEN:
        return
    both = apart & finite.all(dim=0) & (low > 0)
    ratio = float((high / low)[both].median()) if bool(both.any()) else math.nan
    times = "" if math.isnan(ratio) else f", the largest {ratio:.3g} times the smallest (median)"
    first = int(records[0].numbers[apart][0])
    yield Finding(
        "ranks disagree",
        "critical",
        f"{len(records)} ranks measured different norms at {share:.0%} of the steps, first at "
        f"step {first}{times}",
        "Each rank clips its own gradient, by its own factor: local gradients before they are "
        "summed over ranks (clip after the last synchronised backward), or shards of one gradient "
        "(add up their sizes: reduce=).",
        {"ranks": len(records), "share": share, "first_step": first, "ratio": ratio},
    )
