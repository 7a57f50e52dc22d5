"""How large a race fits the time that there is, and what a larger one would take."""

from __future__ import annotations

from collections.abc import Iterator

from cliplab.lab.report.tables import duration
from cliplab.lab.study.size import SIZES, Size

__all__ = ["choose", "larger", "runs_of"]

WAYS = 2


def runs_of(size: Size) -> tuple[int, int]:
    """How many runs a race of a size has, at least and at most: failures ask for more.

    >>> runs_of(SIZES["small"]), runs_of(SIZES["full"])
    ((48, 48), (402, 594))
    """
    sure = size.configurations * size.screening + size.finalists * size.fresh
    return WAYS * (sure + size.runs[0]), WAYS * (sure + size.runs[1])


def choose(run_s: float, minutes: float) -> str:
    """The largest size that surely fits, by what a run takes; ``ValueError``: not even the least.

    >>> choose(1.0, 30), choose(0.1, 1)
    ('full', 'full')
    """
    for name, size in SIZES.items():
        if run_s * runs_of(size)[1] <= 60 * minutes:
            return name
    name, size = list(SIZES.items())[-1]
    runs = runs_of(size)[1]
    raise ValueError(
        f"a run takes {duration(run_s) if run_s >= 10 else f'{run_s:.2g} s'}, and the smallest "
        f"race ({name}) has {runs} of them: --minutes {run_s * runs / 60:.2g}, or shorten a run "
        f"to {60 * minutes / runs:.2g} s"
    )


def larger(than: str) -> Iterator[str]:
    """The larger sizes, smallest first."""
    ordered = list(SIZES)[::-1]
    yield from ordered[ordered.index(than) + 1 :]
