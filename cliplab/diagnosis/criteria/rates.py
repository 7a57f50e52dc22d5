"""How often does the threshold act, and when?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from cliplab.diagnosis.criteria.naming import named
from cliplab.diagnosis.criteria.progress import how_it_works
from cliplab.diagnosis.criteria.series import MIN_STEPS, START
from cliplab.diagnosis.findings import Finding
from cliplab.diagnosis.record import Record
from cliplab.history import quantiles

ALWAYS = 0.9  # clipped at more of the steps: the norm hardly matters any more
OFTEN = 0.5  # clipped at more of the steps: the threshold is below the median norm
FAR = 100.0  # times the threshold: further from the median norm than any list of thresholds tries
EARLY = 0.9  # of the clipped steps lie in the beginning; fewer than
FEW = 3  # of them are no beginning, and
RARELY = 0.01  # of the later steps may be clipped


def find_rates(record: Record) -> Iterator[Finding]:
    """How often it clips; not asked where the gradient is normalised."""
    raises = bool(record.raised.any())
    counts = record.fine & (record.limits.isfinite().any(dim=1) | raises)
    if record.normalises or int(counts.sum()) < MIN_STEPS:
        return
    norms, raised = record.norms[counts], record.raised[counts]
    limits = record.limits[counts].where(~raised, math.nan)  # what is raised has the lower one
    clipped = record.shortened[counts]
    share = clipped.double().mean(dim=0)
    if not raises and not bool(record.clipped[counts].any()):
        yield _never(norms, limits)
    always, often = share >= ALWAYS, (share > OFTEN) & (share < ALWAYS)
    if bool(always.any()):
        yield from _always(record, share, always, norms, limits)
    if bool(often.any()):
        yield _often(record, share, often, norms, limits)
    yield from _outside(record, clipped, raised)
    largest = (norms / limits).amax(dim=1)
    yield from _at_the_start(clipped.any(dim=1), largest, record.numbers[counts])


def _never(norms: Tensor, limits: Tensor) -> Finding:
    ratios = (limits / norms)[(norms > 0) & ~limits.isnan()]  # of parts with a gradient
    ratio = float(ratios.min()) if len(ratios) else math.inf
    limit, largest = quantiles(limits.flatten(), (0.5,))[0], float(norms.max())
    return Finding(
        "never clips",
        "info",
        f"no step was clipped in {len(norms)}: the threshold {limit:.3g} is at least "
        f"{ratio:.3g} times every norm (largest {largest:.3g})",
        "As an insurance against rare spikes that is fine; to clip at all, find_threshold() "
        "or history.replay(c) says where to begin.",
        {"threshold": limit, "largest": largest, "ratio": ratio},
    )


def _always(
    record: Record, share: Tensor, always: Tensor, norms: Tensor, limits: Tensor
) -> Iterator[Finding]:
    limit = quantiles(limits[:, always].flatten(), (0.5,))[0]
    ratio = float((norms[:, always] / limits[:, always]).nanmedian())
    most, names, lr = float(share[always].max()), named(record, always), record.lr
    evidence = {"share": most, "threshold": limit, "norm_by_threshold": ratio, "parts": names}
    product = ""
    if not math.isnan(lr):
        evidence |= {"lr": lr, "lr_times_threshold": lr * limit}
        product = f" (here {lr:.3g} x {limit:.3g} = {lr * limit:.3g})"
    of = f" ({names})" if names else ""
    yield Finding(
        "always clips",
        "info",
        f"{most:.0%} of the steps are clipped{of}, the median norm is {ratio:.3g} times the "
        f"threshold {limit:.3g}",
        f"With plain SGD only learning rate x threshold matters then{product}: tune this one "
        f"product. Under Adam the scale of the gradient hardly matters. {how_it_works(record)}",
        evidence,
    )
    if ratio >= FAR:
        yield Finding(
            "threshold out of scale",
            "warning",
            f"the median norm is {ratio:.3g} times the threshold {limit:.3g}{of}",
            "If that was not meant, look for a loss that is summed and not averaged, a loss scale "
            "that was not undone (unscale_), an input in the wrong unit or a broken "
            "initialisation: clipping makes them look alike. Compare with find_threshold().",
            {"norm_by_threshold": ratio, "threshold": limit, "parts": names},
        )


def _often(record: Record, share: Tensor, often: Tensor, norms: Tensor, limits: Tensor) -> Finding:
    names, most = named(record, often), float(share[often].max())
    median, own = float(norms[:, often].median()), quantiles(limits[:, often].flatten(), (0.5,))[0]
    return Finding(
        "threshold below the median",
        "info",
        f"{most:.0%} of the steps are clipped{f' ({names})' if names else ''}: the threshold "
        f"{own:.3g} is below the median norm {median:.3g}",
        "Clipping then is a smaller learning rate for most steps: that is one way to train, or "
        "raise the threshold (the 0.9 quantile of the norms clips one step in ten). A percentile "
        f"policy below 50 does this by design. {how_it_works(record)}",
        {"share": most, "threshold": own, "median_norm": median, "parts": names},
    )


def _outside(record: Record, clipped: Tensor, raised: Tensor) -> Iterator[Finding]:
    """A band that most norms are outside of."""
    outside = (clipped | raised).double().mean(dim=0)
    if not bool(raised.any()) or float(outside.max()) <= OFTEN:
        return
    part = int(outside.argmax())
    most, up = float(outside[part]), float(raised[:, part].double().mean())
    name = f" ({record.names[part]})" if record.names else ""
    yield Finding(
        "mostly outside its band",
        "info",
        f"{most:.0%} of the steps are outside of the band{name}: {up:.0%} were raised to its lower "
        f"end, {most - up:.0%} lowered to its upper one",
        "What is brought to a limit at most steps is all but normalised: with plain SGD learning "
        "rate x limit is then what matters. A wider band leaves more of the norms as they are.",
        {"share": most, "raised": up, "lowered": most - up},
    )


def _at_the_start(clipped: Tensor, ratios: Tensor, steps: Tensor) -> Iterator[Finding]:
    """Hard in a beginning, and hardly ever after: what a warm-up does."""
    places = clipped.nonzero()[:, 0]
    if len(places) < FEW:
        return
    until = int(places[math.ceil(EARLY * len(places)) - 1]) + 1
    while until < len(clipped) and bool(clipped[until]):
        until += 1
    early, late = float(clipped[:until].double().mean()), clipped[until:].double()
    if not FEW <= until <= START * len(clipped) or early <= OFTEN or float(late.mean()) > RARELY:
        return
    count, last = int(clipped[:until].sum()), int(steps[until - 1])
    highest = float(ratios[:until].nan_to_num(nan=-math.inf).max())
    yield Finding(
        "clips at the start only",
        "info",
        f"{count} of the first {until} steps (to step {last}) are clipped, at up to {highest:.3g} "
        f"times the threshold, and {int(late.sum())} of the other {len(late)}",
        "Harmless: these are gradients of the initialisation, and a warm-up of the learning rate "
        "over as many steps does the same. For the rest of the run the threshold does next to "
        "nothing; history.replay(c) shows what a lower one would.",
        {
            "early": count,
            "steps": until,
            "last_step": last,
            "highest": highest,
            "late": int(late.sum()),
            "late_share": float(late.mean()),
        },
    )
