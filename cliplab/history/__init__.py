"""What happened?

May use: extras, checks, thresholds, plots.
Makes numbers: yes.
"""

from cliplab.history.columns import ClipReport
from cliplab.history.history import History
from cliplab.history.ring import Ring
from cliplab.history.show import html_table
from cliplab.history.summary import quantiles

__all__ = ["ClipReport", "History", "Ring", "html_table", "quantiles"]
