"""What a notebook shows of a live figure: the figure, where ``watch()`` was called, and no more."""

from __future__ import annotations

import sys
from typing import Any


def hide_object(formatter: Any) -> None:
    """Have an IPython ``DisplayFormatter`` show nothing for the object that ``watch()`` returns."""
    by_name = formatter.ipython_display_formatter.for_type_by_name
    by_name("cliplab.history.live", "Live", lambda live: None)


def hide_in_notebook() -> None:
    """The same of the notebook that this is, if it is one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        hide_object(shell.display_formatter)
