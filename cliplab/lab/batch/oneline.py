"""An error in one line."""

from __future__ import annotations

import re

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours and the like

MOST = 500  # characters


def one_line(error: object) -> str:
    """What an error says, without line breaks and colours; its type if it says nothing.

    >>> one_line(ValueError("too\\n  \\x1b[31mlarge\\x1b[0m")), one_line(TimeoutError())
    ('too large', 'TimeoutError')
    """
    plain = ANSI.sub("", str(error))
    printable = "".join(c if c.isprintable() else " " for c in plain)
    line = " ".join(printable.split()) or type(error).__name__
    return line if len(line) <= MOST else f"{line[: MOST - 1]}…"
