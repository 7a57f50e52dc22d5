"""How large a race fits the time that there is, and what a larger one would take."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cliplab.lab.report.tables import duration
from cliplab.lab.study.size import SIZES, Size

__all__ = ["choose", "enough", "larger", "reach", "runs_of"]

WAYS = 2


def runs_of(size: Size, control: bool) -> tuple[int, int]:
    """How many runs a race of a size has, at least and at most.

    Failures ask for more, and so does a ``control`` that has other finalists than its way.

    >>> runs_of(SIZES["small"], False), runs_of(SIZES["full"], True)
    ((48, 48), (402, 666))
    """
    fresh = size.finalists * size.fresh
    sure = WAYS * (size.configurations * size.screening + fresh)
    return sure + WAYS * size.runs[0], sure + WAYS * size.runs[1] + control * fresh


def choose(run_s: float, minutes: float, control: bool) -> str:
    """The largest size that surely fits, by what a run takes; ``ValueError``: not even the least.

    >>> choose(1.0, 10, False), choose(1.0, 0.8, False), choose(1.0, 0.8, True)
    ('full', 'small', 'tiny')
    """
    for name, size in SIZES.items():
        if run_s * runs_of(size, control)[1] <= 60 * minutes:
            return name
    name, size = list(SIZES.items())[-1]
    runs = runs_of(size, control)[1]
    raise ValueError(
        f"a run takes {duration(run_s) if run_s >= 10 else f'{run_s:.2g} s'}, and the smallest "
        f"race ({name}) has {runs} of them: --minutes {enough(run_s * runs / 60)}, or shorten a "
        f"run to {60 * minutes / runs:.2g} s"
    )


def larger(than: str) -> Iterator[str]:
    """The larger sizes, smallest first."""
    ordered = list(SIZES)[::-1]
    yield from ordered[ordered.index(than) + 1 :]


def reach(name: str, run_s: float, control: bool) -> str:
    """Which minutes reach the larger sizes; nothing where there is none.

    >>> reach("small", 1.0, True)
    'small decides nothing; larger ones: --minutes 9.7 (half), 11 (full32), 12 (full)'
    """
    minutes = {size: run_s * runs_of(SIZES[size], control)[1] / 60 for size in larger(name)}
    told = ", ".join(f"{enough(most)} ({size})" for size, most in minutes.items())
    before = "" if SIZES[name].decides else f"{name} decides nothing; "
    return f"{before}larger ones: --minutes {told}" if told else ""


def enough(minutes: float) -> str:
    """Minutes that surely suffice.

    >>> enough(0.312), enough(3.2), enough(50)
    ('0.32', '3.3', '51')
    """
    scale = 1 if minutes >= 10 else 10 if minutes >= 1 else 100
    return f"{math.ceil(1.02 * scale * minutes) / scale:g}"
