"""What was measured, and on what does it depend?

May use: notebook.
Makes numbers: no.
"""

from cliplab.lab.runs.record import MIME, RunRecord, record, union_rows

__all__ = ["MIME", "RunRecord", "record", "union_rows"]
