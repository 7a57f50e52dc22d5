"""Does a run that is clipped get on, or does clipping hide that its learning rate is too high?

A clipped step is at most ``learning rate x threshold`` long, so a rate that is too high does not
end in NaN. What it leaves: a loss that is no lower than at the begin, or that was lower before; and
norms that grow. What cannot be told: a product of rate and threshold that is a few times too high
or too low while the loss still falls (the norms of both look alike, and so do the losses), and
without losses any whose norms stay. There only another run, at half of the product, tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from cliplab.diagnosis.criteria.series import MIN_TREND, START, blocks_of, lower_share
from cliplab.diagnosis.criteria.trends import growth
from cliplab.diagnosis.findings import Finding
from cliplab.diagnosis.record import Record

ACTS = 0.1  # of the steps are clipped: enough to hide something from the loss
TIGHT = 0.5  # of them: enough to bound the run's length, so that growing norms say something
EDGE = 10  # first losses: the loss before it has fallen
FALLEN = 0.75  # of the pairs of a last and a first loss have fallen: 2.7 sd above none of it
STALLED = 0.6  # of them: 1 sd above
REBOUND = 0.9  # of the last losses are above the first, or those of the best block (by chance 0.65)


class Progress(NamedTuple):
    """What the losses did: medians at the begin, at the end and in the best block between."""

    begin: float
    end: float
    best: float
    fallen: float  # share of pairs of a last and a first loss in which the last is lower
    above: float  # share of the last losses that are above the very first
    rebound: float  # share of pairs of a last loss and one of the best block where it is higher

    @property
    def works(self) -> bool:
        """The loss has fallen, if only in the first steps, and stayed there."""
        fell = self.fallen >= FALLEN or self.above <= 1 - REBOUND
        return fell and max(self.rebound, self.above) < REBOUND


def progress(loss: Tensor) -> Progress | None:
    """What the finite ones of the losses ``[steps]`` did; None of too few."""
    known = loss[loss.isfinite()]
    if len(known) < MIN_TREND:
        return None
    first, last = known[:EDGE], known[-int(START * len(known)) :]
    blocks = blocks_of(known)
    best = blocks[blocks.median(dim=1).values.argmin()]
    begin, end, low = (float(values.median()) for values in (first, last, best))
    return Progress(
        begin,
        end,
        low,
        fallen=lower_share(last, first),
        above=1 - lower_share(last, known[:1]),
        rebound=1 - lower_share(last, best),
    )


def how_it_works(record: Record) -> str:
    """What is known of a run that is clipped most of the time, in a sentence."""
    found = progress(record.loss)
    if found is None:
        return (
            "Norms alone do not tell whether it hides a learning rate that is too high: give the "
            f"losses (loss=) of {MIN_TREND} steps, and compare a run at half of the product."
        )
    if found.works:
        return (
            f"The loss falls ({found.begin:.3g} to {found.end:.3g}), so it works; whether half or "
            "twice the product were better only another run tells."
        )
    return "The loss does not show that it works."


def find_hidden_rate(record: Record) -> Iterator[Finding]:
    """Clipped often, and the loss or the norms say that it is no help."""
    clipped = record.shortened[record.fine].double()
    share = float(clipped.mean()) if len(clipped) else 0.0
    if record.normalises or share < ACTS:
        return
    found, grown = progress(record.loss), growth(record)
    evidence: dict[str, float] = {"share": share}
    if found is not None:
        sign = _no_progress(found, begun=record.begun)
        if not sign:
            return
        evidence |= found._asdict()
    elif grown is not None and share >= TIGHT:
        sign = f"the norm grew {grown.rise:.3g}-fold"
        evidence |= {"rise": grown.rise}
    else:
        return
    known = "" if math.isnan(record.lr) else f" (the median rate is {record.lr:.3g})"
    yield Finding(
        "hidden learning rate",
        "warning",
        f"{share:.0%} of the steps are clipped, and {sign}",
        "A clipped step is at most learning rate x threshold long, so a rate that is too high "
        f"shows as a bad loss and not as NaN{known}: compare runs at half and at a quarter of the "
        "product. A loss that is flat from the first step on may also be one of steps that are "
        "too short: compare twice the product, too. Where a loss need not fall, as in games, give "
        "as loss= what should, such as the negative return.",
        evidence,
    )


def _no_progress(found: Progress, *, begun: bool) -> str:
    """What losses say that do not fall; nothing if they do, or may have in steps forgotten."""
    if found.rebound >= REBOUND:
        return f"the loss was lower before: {found.best:.3g}, at the end {found.end:.3g}"
    if begun and found.above >= REBOUND:
        return f"the loss is above the very first: {found.end:.3g} at the end"
    stalled = found.fallen <= STALLED and found.above > 1 - REBOUND
    if stalled if begun else found.fallen <= 1 - FALLEN:
        return f"the loss has not fallen: {found.begin:.3g} at first, {found.end:.3g} at the end"
    return ""
