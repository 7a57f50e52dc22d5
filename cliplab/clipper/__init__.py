"""Measure, ask, respond: the clipper, alone or at an optimizer.

May use: checks, norms, parts, thresholds, history.
Makes numbers: yes.
"""

from cliplab.clipper.attachment import Attachment
from cliplab.clipper.clipper import Clipper
from cliplab.clipper.nonfinite import Watch

__all__ = ["Attachment", "Clipper", "Watch"]
