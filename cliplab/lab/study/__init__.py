"""What is drawn, trained and chosen, so that two ways of clipping can be compared?

May use: stats.
Makes numbers: yes.
"""

from cliplab.lab.study.size import SIZES, Size
from cliplab.lab.study.space import Choice, Linear, Log, Space
from cliplab.lab.study.study import Study

__all__ = ["SIZES", "Choice", "Linear", "Log", "Size", "Space", "Study"]
