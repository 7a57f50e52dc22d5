"""What does anybody's log say of gradient norms? Files of other trackers, read as a history.

A format (``json_files``, ``tables``, ``events``) yields ``Columns``; ``names`` guesses which is
what; ``assemble`` makes a history of them, by ``steps``; ``reading`` goes the whole way.

Makes numbers: no. Nothing that is published is read here.
"""

from cliplab.diagnosis.logs.assemble import Log
from cliplab.diagnosis.logs.columns import Unfinished
from cliplab.diagnosis.logs.names import Naming
from cliplab.diagnosis.logs.reading import read_log

__all__ = ["Log", "Naming", "Unfinished", "read_log"]
