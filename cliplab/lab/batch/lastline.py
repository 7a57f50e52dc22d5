"""The last line of a stream, kept in a small file."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cliplab.lab.batch.oneline import ANSI


def to_see(text: str) -> str:
    """A text without what a carriage return has overwritten, in time linear in its length.

    >>> to_see("10%\\r90%\\nend\\r\\n")
    '90%\\nend\\r\\n'
    """
    if "\r" not in text:
        return text
    return "\n".join(map(_to_see, text.split("\n")))


def _to_see(line: str) -> str:
    shown = line.rstrip("\r")
    return shown.rpartition("\r")[2] + line[len(shown) :]


class LastLine:
    """A file that keeps, for the batch's display, a heading and the last line written: a bar."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._heading, self._written = "", 0.0

    def begin(self, heading: str) -> None:
        """A new heading and no line yet."""
        self._heading = heading
        self._show("")

    def write(self, text: str) -> None:
        """Text as it comes; shown at most twice a second."""
        lines = [line.strip() for line in re.split(r"[\r\n]", ANSI.sub("", text))]
        if any(lines) and self._clock() - self._written >= 0.5:
            self._written = self._clock()
            self._show([line for line in lines if line][-1][:200])

    def _show(self, line: str) -> None:
        with suppress(OSError):  # a display, nothing more
            self._path.write_text(f"{self._heading} {line}".rstrip(), encoding="utf-8")
