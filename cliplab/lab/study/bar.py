"""A study that shows a bar while it trains, where somebody looks on.

May use: notebook.
Makes numbers: no.
"""

from __future__ import annotations

import sys
from copy import copy
from typing import Any

from cliplab.lab.notebook.inside import in_batch, notebook_shell
from cliplab.lab.study.size import BLOCK, Size, size_named
from cliplab.lab.study.study import Study as Silent

__all__ = ["Study"]

Row = dict[str, Any]


class Study(Silent):  # noqa: D101
    __doc__ = Silent.__doc__

    def run(self, size: str | Size, first_seed: int) -> list[Row]:
        """Carry the study out; all its rows, those of tuning too.

        A configuration's seeds are its own, ``first_seed + 64 i`` and after, and the ways share
        them; the draws are scrambled by ``first_seed``. On a terminal and in a notebook (not in a
        batch) a bar shows how many runs are done, of how many, and the time left.
        """
        if in_batch() or not (notebook_shell() or sys.stderr.isatty()):
            return super().run(size, first_seed)
        from tqdm.auto import tqdm

        size = size_named(size)
        total, extended = self._least(size), set[str]()
        with tqdm(total=total, unit="run", desc=self.name) as bar:

            def train(configurations: list[Row], seeds: list[int]) -> list[Row]:
                nonlocal total
                way = configurations[0]["way"]
                if way not in extended and _is_extension(size, min(seeds) - first_seed):
                    extended.add(way)
                    total += size.runs[1] - size.runs[0]
                total = max(total, int(bar.n) + len(seeds))  # a handicap's finalists are more
                bar.total = total
                bar.set_description(f"{self.name}: {way}")
                rows = self.train(configurations, seeds)
                bar.update(len(seeds))
                return rows

            shown = copy(self)
            shown.train = train
            return Silent.run(shown, size, first_seed)

    def _least(self, size: Size) -> int:
        """How many runs there are if no failure asks for more."""
        compared = {way for pair in self.versus for way in pair}
        each = size.configurations * size.screening + size.finalists * size.fresh
        return len(self.ways) * each + len(compared) * size.runs[0]


def _is_extension(size: Size, offset: int) -> bool:
    """Whether a seed, counted from the first, is one of those that a failure asks for."""
    return offset % BLOCK >= size.screening + size.fresh + size.runs[0] // size.picks
