"""How sure can one be?

May use: nothing of the lab.
Makes numbers: yes.
"""

from cliplab.lab.stats.contrasts import contrasts
from cliplab.lab.stats.paired import Estimate, holm, mcnemar, paired
from cliplab.lab.stats.scores import (
    Interval,
    collapsed,
    interquartile_mean,
    probability_of_improvement,
)
from cliplab.lab.stats.shares import boschloo, difference_interval

__all__ = [
    "Estimate",
    "Interval",
    "boschloo",
    "collapsed",
    "contrasts",
    "difference_interval",
    "holm",
    "interquartile_mean",
    "mcnemar",
    "paired",
    "probability_of_improvement",
]
