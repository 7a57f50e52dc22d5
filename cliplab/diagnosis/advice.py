"""Advice read off a history: what is wrong with the clipping, the evidence, and what to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from cliplab.diagnosis.criteria import health, place, progress, rates, spikes, trends
from cliplab.diagnosis.findings import SEVERITIES, Finding, Findings
from cliplab.diagnosis.record import Losses, Record, Recorded, read
from cliplab.history import History

CHECKS: tuple[Callable[[Record], Iterator[Finding]], ...] = (
    health.find_nonfinite, health.find_skipped, place.find_clipped_before,
    place.find_clipped_after, progress.find_hidden_rate, rates.find_rates, trends.find_trend,
    trends.find_rate_driven, spikes.find_spikes, spikes.find_leading_updates,
    spikes.find_dominant, health.find_too_short,
)  # fmt: skip


def diagnose(
    history: History | Recorded | Sequence[History | Recorded],
    lr: float | None = None,
    *,
    loss: Losses | None = None,
    steps: Tensor | None = None,
) -> Findings:
    """Return what a history shows, the worst first; an empty list if nothing is wrong.

    A ``Clipper`` is taken for its history. ``lr`` is used where that has no learning rates;
    ``loss`` are the losses of its steps, one for each, NaN where unknown, and ``steps`` the
    numbers of these where not every one was recorded (as ``read_log`` returns them). Of a list, the
    histories of the ranks of one run, the first is read, and whether the others measured the same.

    The criteria are the constants at the top of the files in ``criteria``. Clip frequency alone
    does not tell a good run from a bad one (the best and the worst settings may clip every step):
    it is no warning, unless losses or norms say more, and it is not judged where every gradient is
    brought to its limit, as in mode "normalise".

    ``ValueError`` for what has no history, ranks whose steps are not the same, a learning rate that
    is not positive, and losses or numbers of steps that are none, or not one for each step.

    Args:
        history: of a run, a clipper, or a list: of the ranks of a run.
        lr: learning rate, > 0, where the history has none.
        loss: losses ``[steps]``.
        steps: numbers of the steps, ``[steps]``.
    """
    records = [read(one, lr, loss, steps) for one in _each(history)]
    found = [finding for check in CHECKS for finding in check(records[0])]
    if len(records) > 1:
        _must_be_of_one_run(records)
        found += place.find_ranks_apart(records)
    return Findings(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def _each(history: Any) -> Sequence[Any]:
    """The histories of a list; what is none of these, or empty, is refused where it is read."""
    return history if isinstance(history, list | tuple) and history else [history]


def _must_be_of_one_run(records: Sequence[Record]) -> None:
    steps = [record.numbers.tolist() for record in records]
    if any(numbers != steps[0] for numbers in steps):
        spans = ", ".join(f"{own[0]} to {own[-1]}" if own else "none" for own in steps)
        raise ValueError(f"histories of ranks must hold the same steps, got {spans}")
