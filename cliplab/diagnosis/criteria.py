"""Advice read off a history: what is wrong with the clipping, the evidence, and what to change."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cliplab.diagnosis.findings import (
    SEVERITIES,
    Finding,
    Findings,
    Losses,
    Record,
    Recorded,
    read,
)
from cliplab.history import History, quantiles

MIN_STEPS = 50  # a share of steps is then known to about 0.07
MIN_SPIKES = 100  # two windows of the running median
MIN_TREND = 200  # 20 blocks of 9: the median of a block moves by a third of its spread
ALWAYS = 0.9  # clipped at more of the steps: the norm hardly matters any more
OFTEN = 0.5  # clipped at more of the steps: the threshold is below the median norm
WALL = 17  # one more halving than a GradScaler needs from 2^16 to 1
STUCK = 3  # non-finite steps at the end: the weights themselves are not finite
START = 0.1  # share of the steps in which norms may still be those of the initialisation
BLOCKS = 20  # points of the trend
RISE = 3.0  # by which the norm must have grown from begin to end, and
TAU = 0.6  # Kendall's tau of that: nearly every later block is above an earlier one
WINDOW = 51  # steps of the running median that a spike stands out from
SIGMAS = 5.0  # of log(norm / running median), robust (1.4826 x median of those above 0), and
SPIKE = 10.0  # times the running median: up to there a threshold still converges (see probe)
ISOLATED = 0.1  # more of the steps are a heavy tail, not spikes
DOMINANT = 0.9  # of the squared norm: without this part the norm would be a third of it
SKIPPED = 0.05  # of the steps: data and time are lost


def diagnose(
    history: History | Recorded, lr: float | None = None, *, loss: Losses | None = None
) -> Findings:
    """Return what a history shows, the worst first; an empty list if nothing is wrong.

    A ``Clipper`` is taken for its history. ``lr`` is used where that has no learning rates;
    ``loss`` are the losses of the recorded steps, one for each, NaN where unknown. The criteria are the constants of this module. Clip frequency alone does not tell a good run from a
    bad one (the best and the worst settings may clip every step), so compare the loss before
    following an advice. It is not judged where the gradient is normalised: of a clipper of that
    mode, or if a recorded factor is above 1.

    ``ValueError`` for what has no history, a learning rate that is not positive, and losses that are
    no numbers, or not one for each step.
    """
    record = read(history, lr, loss)
    checks: tuple[Callable[[Record], Iterator[Finding]], ...] = (
        _find_nonfinite, _find_skipped, _find_rates, _find_trend, _find_spikes,
        _find_dominant, _find_too_short,
    )  # fmt: skip
    found = [finding for check in checks for finding in check(record)]
    return Findings(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _find_nonfinite(record: Record) -> Iterator[Finding]:
    bad = ~record.fine
    count = int(bad.sum())
    if not count:
        return
    longest, begin, at_end = _runs(bad)
    parts = ~record.norms.isfinite()
    first = int(bad.nonzero()[0])
    names = _named(record, parts[first])
    evidence: dict[str, float] = {
        "count": count,
        "longest": longest,
        "first_step": first + record.first_step,
    }
    where = f", first in {names}" if names else ""
    if longest >= WALL or (at_end >= STUCK and count < len(bad)):
        before = record.total[:begin][record.fine[:begin]]
        rise = float(before[-1] / before.median()) if len(before) else math.nan
        evidence |= {"begin": begin + record.first_step, "rise_before": rise}
        how = "The norm had grown before: " if rise > SPIKE else "It came without warning: "
        cause = (
            "lower the learning rate or the threshold"
            if rise > SPIKE
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


def _find_skipped(record: Record) -> Iterator[Finding]:
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


def _find_rates(record: Record) -> Iterator[Finding]:
    counts = record.fine & record.limits.isfinite().any(dim=1)
    if record.normalises or int(counts.sum()) < MIN_STEPS:
        return
    norms, limits = record.norms[counts], record.limits[counts]
    share = (record.clipped[counts] & ~record.skipped[counts]).double().mean(dim=0)
    limit = quantiles(limits.flatten(), (0.5,))[0]
    if not bool(record.clipped[counts].any()):
        ratios = (limits / norms)[(norms > 0) & ~limits.isnan()]  # of parts with a gradient
        ratio = float(ratios.min()) if len(ratios) else math.inf
        yield Finding(
            "never clips",
            "info",
            f"no step was clipped in {len(norms)}: the threshold {limit:.3g} is at least "
            f"{ratio:.3g} times every norm (largest {float(norms.max()):.3g})",
            "As an insurance against rare spikes that is fine; to clip at all, find_threshold() "
            "or history.replay(c) says where to begin.",
            {"threshold": limit, "largest": float(norms.max()), "ratio": ratio},
        )
    always, often = share >= ALWAYS, (share > OFTEN) & (share < ALWAYS)
    if bool(always.any()):
        yield _always(record, share, always, norms, limits)
    if bool(often.any()):
        names = _named(record, often)
        median, most = float(norms[:, often].median()), float(share[often].max())
        own = quantiles(limits[:, often].flatten(), (0.5,))[0]
        yield Finding(
            "threshold below the median",
            "warning",
            f"{most:.0%} of the steps are clipped{f' ({names})' if names else ''}: the threshold "
            f"{own:.3g} is below the median norm {median:.3g}",
            "Clipping then is a smaller learning rate for most steps: raise the threshold (the 0.9 "
            "quantile of the norms clips one step in ten), or keep it and raise the learning rate. "
            "A percentile policy below 50 does this by design.",
            {"share": most, "threshold": own, "median_norm": median, "parts": names},
        )


def _always(
    record: Record, share: Tensor, always: Tensor, norms: Tensor, limits: Tensor
) -> Finding:
    limit = quantiles(limits[:, always].flatten(), (0.5,))[0]
    ratio = float((norms[:, always] / limits[:, always]).nanmedian())
    most, names, lr = float(share[always].max()), _named(record, always), record.lr
    evidence = {"share": most, "threshold": limit, "norm_by_threshold": ratio, "parts": names}
    product = ""
    if not math.isnan(lr):
        evidence |= {"lr": lr, "lr_times_threshold": lr * limit}
        product = f" (here {lr:.3g} x {limit:.3g} = {lr * limit:.3g})"
    return Finding(
        "always clips",
        "warning",
        f"{most:.0%} of the steps are clipped{f' ({names})' if names else ''}, the median norm is "
        f"{ratio:.3g} times the threshold {limit:.3g}",
        f"With plain SGD only learning rate x threshold matters then{product}: tune this one "
        "product. It can hide a learning rate that is too high: the loss stays finite and bad; "
        "compare a run at half of it. Under Adam the scale of the gradient hardly matters.",
        evidence,
    )


def _find_trend(record: Record) -> Iterator[Finding]:
    logs, steps = _logs(record)
    begin = int(START * len(logs))
    length = (len(logs) - begin) // BLOCKS
    if len(logs) < MIN_TREND:
        return
    blocks = logs[len(logs) - BLOCKS * length :].reshape(BLOCKS, length).median(dim=1).values
    i, j = torch.triu_indices(BLOCKS, BLOCKS, offset=1, device="cpu")
    differences = blocks[j] - blocks[i]
    tau = float(differences.sign().mean())
    rise = math.exp(float((differences / (j - i)).median()) * (BLOCKS - 1))
    if tau >= TAU and rise >= RISE:
        yield Finding(
            "norm trending up",
            "warning",
            f"the norm grew {rise:.3g}-fold from step {int(steps[begin])} to step "
            f"{int(steps[-1])} (Theil-Sen on block medians, Kendall's tau {tau:.2f})",
            "Often the weights grow or the learning rate is too high: lower it or add weight "
            "decay or a warm-up. A fixed threshold will clip more and more; one relative to past "
            "norms follows the growth and does not stop it.",
            {"rise": rise, "tau": tau},
        )


def _logs(record: Record) -> tuple[Tensor, Tensor]:
    """Return log norms of the finite steps with a gradient, and the numbers of these steps."""
    total = record.total[record.fine]
    return total[total > 0].log(), record.steps[total > 0]


def _find_spikes(record: Record) -> Iterator[Finding]:
    logs, steps = _logs(record)
    if len(logs) < MIN_SPIKES:
        return
    half = WINDOW // 2
    padded = torch.cat([logs[:half].flip(0), logs, logs[-half:].flip(0)])
    above = logs - padded.unfold(0, WINDOW, 1).median(dim=1).values
    sigma = 1.4826 * float(above[above > 0].median())
    is_spike = above > max(SIGMAS * sigma, math.log(SPIKE))
    is_spike[: int(START * len(logs))] = False
    count = int(is_spike.sum())
    if not count or count > ISOLATED * len(logs):
        return
    highest = int(above.where(is_spike, -math.inf).argmax())
    times, step = math.exp(float(above[highest])), int(steps[highest])
    shares = record.norms[step - record.first_step]
    part = f", most of it in {record.names[int(shares.argmax())]}" if record.names else ""
    where = ", ".join(str(int(s)) for s in steps[is_spike][:5]) + (", ..." if count > 5 else "")
    yield Finding(
        "isolated spikes",
        "warning",
        f"{count} of {len(logs)} norms stand out, the highest {times:.3g} times the running "
        f"median at step {step}{part}; steps {where}",
        "Look at the batches of these steps. This is what clipping is for: a threshold at the 0.99 "
        'quantile of the other norms takes them; mode="skip" leaves them out.',
        {"count": count, "highest": times, "step": step, "steps": steps[is_spike].tolist()},
    )


def _find_dominant(record: Record) -> Iterator[Finding]:
    if len(record.names) < 3 or int(record.fine.sum()) < MIN_STEPS:
        return
    squares = record.norms[record.fine].square()
    shares = (squares / squares.sum(dim=1, keepdim=True)).nanmedian(dim=0).values
    part = int(shares.argmax())
    if float(shares[part]) >= DOMINANT:
        name, share = record.names[part], float(shares[part])
        yield Finding(
            "one part dominates",
            "info",
            f"{name} holds {share:.0%} of the squared norm (median over the steps) of "
            f"{len(record.names)} parts",
            "One threshold for the whole gradient would shrink all other parts by what this one "
            'exceeds: clip per tensor (scope="tensor"), or give it a threshold of its own.',
            {"part": name, "share": share},
        )


def _find_too_short(record: Record) -> Iterator[Finding]:
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


def _named(record: Record, mask: Tensor, most: int = 5) -> str:
    """Return the names of some parts, or nothing where there is but one."""
    chosen = mask.tolist()
    names = [name for i, name in enumerate(record.names) if chosen[i]]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
