"""Figures of a history, of arms against each other, and of a map; needs ``cliplab[lab]``.

May use: nothing.
Makes numbers: no.
"""

from cliplab.plots.arms import heatmap, runs, shares
from cliplab.plots.recorded import history, overview, probe
from cliplab.plots.style import COLOURS, WIDE, sns, theme

__all__ = [
    "COLOURS",
    "WIDE",
    "heatmap",
    "history",
    "overview",
    "probe",
    "runs",
    "shares",
    "sns",
    "theme",
]
