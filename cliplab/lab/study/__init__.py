"""What is drawn, trained and chosen, so that two ways of clipping can be compared?

May use: notebook, stats.
Makes numbers: yes.
"""

from typing import TYPE_CHECKING

from cliplab.lab.study.size import SIZES, Size
from cliplab.lab.study.space import Choice, Linear, Log, Space

if TYPE_CHECKING:
    from cliplab.lab.study.study import Study

__all__ = ["SIZES", "Choice", "Linear", "Log", "Size", "Space", "Study"]


def __getattr__(name: str) -> object:
    """``Study``, as one that shows a bar: what it adds makes no number, and is in no run key."""
    if name == "Study":
        from cliplab.lab.study.bar import Study

        globals()[name] = Study
        return Study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
