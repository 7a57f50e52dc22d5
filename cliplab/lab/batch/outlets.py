"""Where a notebook's output goes as it comes: the batch's display, stderr, files."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

from cliplab.lab.batch.lastline import LastLine, to_see
from cliplab.lab.batch.spec import RunSpec


class Outlets(ExitStack):
    """Inside a ``with`` block, takes a run's outputs, one after the other."""

    def __init__(self, spec: RunSpec, display: LastLine) -> None:
        super().__init__()
        self._label, self._how, self._display = spec.label, spec.how, display
        self._files: dict[str, TextIO] = {}
        self._begun: dict[str, str] = defaultdict(str)  # lines that have no end yet, by stream

    def __enter__(self) -> Outlets:
        for name, path in (("stdout", self._how.stdout_file), ("stderr", self._how.stderr_file)):
            if path:
                self._files[name] = self.enter_context(appended(path))
        self.callback(self._finish)
        return self

    def take(self, output: Any) -> None:
        """An output of nbformat's; what is no text is left out."""
        if output["output_type"] != "stream":
            self._log("stdout", f"\n{output.get('data', {}).get('text/plain', '')}\n")
            return
        name, text = output["name"], output["text"]
        if name == "stderr":
            self._display.write(text)
        if name in self._files:
            self._files[name].write(text)
            self._files[name].flush()
        self._log(name, text)

    def _log(self, stream: str, text: str) -> None:
        """Whole lines on stderr, each led by the run's label."""
        if self._how.log_output:
            *lines, self._begun[stream] = (self._begun[stream] + text).split("\n")
            shown = [to_see(line).rstrip() for line in lines]
            with suppress(OSError):  # nobody may look any more
                sys.stderr.write("".join(f"{self._label}: {line}\n" for line in shown if line))
                sys.stderr.flush()

    def _finish(self) -> None:
        for stream in list(self._begun):
            self._log(stream, "\n")


def appended(path: Path) -> TextIO:
    """A text file, open at its end, made with its folders if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="utf-8", errors="backslashreplace")
