"""What was measured, and on what does it depend?

May use: cliplab, notebook.
Makes numbers: no.
"""

from cliplab.lab.runs.record import MIME, RunRecord, union_rows
from cliplab.lab.runs.tidy import record

__all__ = ["MIME", "RunRecord", "record", "union_rows"]
