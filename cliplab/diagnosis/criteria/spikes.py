"""What stands out: single steps, single parts, and updates that come before a loss?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cliplab.diagnosis.criteria.naming import first_few
from cliplab.diagnosis.criteria.series import MIN_SPIKES, MIN_STEPS, known_logs, standing_out
from cliplab.diagnosis.findings import Finding
from cliplab.diagnosis.record import Record

SPIKE = 10.0  # times the running median: up to there a threshold still converges (see probe)
ISOLATED = 0.1  # more of the steps are a heavy tail, not spikes
DOMINANT = 0.9  # of the squared norm: without this part the norm would be a third of it
JUMP = 2.0  # times its running median: Adam's updates are bounded, and spike lower than gradients
AHEAD = 8  # steps in which an update comes before a loss (Wortsman et al. 2023, arXiv 2304.13013)
EVENTS = 3  # spikes: fewer are chance, and healthy runs have them, too (notebook 15)
LED = 2 / 3  # of them come after a spike of the updates, and at most
UNLED = 0.5  # of those after one of the gradients, too
COVERED = 0.2  # of the steps come after a spike of the updates: more, and it says little


def find_spikes(record: Record) -> Iterator[Finding]:
    """Single steps that stand out."""
    logs, at = known_logs(record.total)
    if len(logs) < MIN_SPIKES:
        return
    above, is_spike = standing_out(logs, math.log(SPIKE))
    count = int(is_spike.sum())
    if not count or count > ISOLATED * len(logs):
        return
    highest = int(above.where(is_spike, -math.inf).argmax())
    steps = record.numbers[at]
    times, step = math.exp(float(above[highest])), int(steps[highest])
    shares = record.norms[at[highest]]
    part = f", most of it in {record.names[int(shares.argmax())]}" if record.names else ""
    yield Finding(
        "isolated spikes",
        "warning" if count >= EVENTS else "info",
        f"{count} of {len(logs)} norms stand out, the highest {times:.3g} times the running "
        f"median at step {step}{part}; steps {first_few(steps[is_spike])}",
        "Look at the batches of these steps. This is what clipping is for: a threshold at the 0.99 "
        'quantile of the other norms takes them; mode="skip" leaves them out.',
        {"count": count, "highest": times, "step": step, "steps": steps[is_spike].tolist()},
    )


def find_dominant(record: Record) -> Iterator[Finding]:
    """A part that is nearly all of the norm."""
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


def find_leading_updates(record: Record) -> Iterator[Finding]:
    """Updates that spike shortly before the loss does, where gradients do not."""
    if record.of_updates:  # these are limited already
        return
    known = record.loss.isfinite()
    if int(known.sum()) < MIN_SPIKES or int((record.updates > 0).sum()) < MIN_SPIKES:
        return
    losses = torch.zeros_like(known)
    losses[known] = standing_out(record.loss[known])[1]
    events = losses & ~_shortly_after(losses)
    after_update = _shortly_after(_jumps(record.updates))
    count, led = int(events.sum()), int((events & after_update).sum())
    by_gradient = int((events & _shortly_after(_jumps(record.total))).sum())
    covered = float(after_update.double().mean())
    if count < EVENTS or led < LED * count or covered > COVERED or by_gradient > UNLED * led:
        return
    at = record.numbers[events & after_update]
    yield Finding(
        "update spikes lead the loss",
        "warning",
        f"{led} of {count} spikes of the loss come within {AHEAD} steps after one of the update's "
        f"norm (which {covered:.0%} of all steps do), {by_gradient} after one of the gradient's; "
        f"steps {first_few(at)}",
        "The optimizer's second moment lags behind: a threshold on gradients comes too late. Limit "
        'the update (Clipper(..., target="update"), create("stable_adamw", model) or '
        'create("update_history", model)), or lower beta2.',
        {
            "loss_spikes": count,
            "led_by_updates": led,
            "led_by_gradients": by_gradient,
            "covered": covered,
            "steps": at.tolist(),
        },
    )


def _jumps(values: Tensor) -> Tensor:
    """Which of the values ``[steps]`` stand out at ``JUMP`` times their running median."""
    logs, at = known_logs(values)
    jumps = torch.zeros(len(values), dtype=torch.bool, device="cpu")
    if len(logs) >= MIN_SPIKES:
        jumps[at] = standing_out(logs, math.log(JUMP))[1]
    return jumps


def _shortly_after(flags: Tensor) -> Tensor:
    """Which steps come 1 to ``AHEAD`` steps after a true flag."""
    after = torch.zeros_like(flags)
    for steps in range(1, AHEAD + 1):
        after[steps:] |= flags[:-steps]
    return after
