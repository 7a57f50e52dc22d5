"""What happened?

May use: checks, thresholds, plots.
Makes numbers: yes.
"""

from cliplab.history.columns import ClipReport, Row
from cliplab.history.history import History
from cliplab.history.summary import quantiles

__all__ = ["ClipReport", "History", "Row", "quantiles"]
