"""What a batch shows while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliplab.lab.batch.spec import RunSpec


class Silent:
    """A display that shows nothing."""

    def begin(self, done: int, missing: int, lines: int) -> None:
        """The missing runs are carried out now, ``lines`` of them at once."""

    def say(self, line: str) -> None:
        """Show a line."""

    def refresh(self, running: Sequence[RunSpec]) -> None:
        """Show what runs now."""

    def finished(self, spec: RunSpec, failed: bool) -> None:
        """Count a run that is over."""

    def retried(self, spec: RunSpec, error: str) -> None:
        """Say that a run failed and starts again."""

    def elsewhere(self, spec: RunSpec) -> None:
        """Say that another batch has a run now, which this one waits for."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Progress(Silent):
    """On stderr: one bar for the batch with the time left, one line for each running notebook.

    ``bars`` False: plain lines also on a terminal, where the notebooks' own lines come between.
    ``what`` stands before the counts.
    """

    def __init__(self, bars: bool = True, what: str = "") -> None:
        self._bars, self._what = bars, what
        self._started: dict[Path, float] = {}
        self._waited_for: set[Path] = set()
        self._total = self._count = 0
        self._bar: Any = None
        self._lines: list[Any] = []

    def begin(self, done: int, missing: int, lines: int) -> None:
        """The missing runs are carried out now, ``lines`` of them at once."""
        self.say(f"{self._what}{done} done, {missing} to run")
        self._total = missing
        if missing and self._bars and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=missing, unit="run", desc="runs", position=0)
            self._lines = [
                tqdm(bar_format="  {desc}", position=slot + 1, leave=False) for slot in range(lines)
            ]

    def refresh(self, running: Sequence[RunSpec]) -> None:
        """Show what runs now."""
        for spec in running:
            if spec.directory not in self._started:
                self._started[spec.directory] = time.monotonic()
                if not self._bar:
                    self.say(f"start {spec.label}")
        if self._bar:
            texts = self._describe_all(running)
            for slot, line in enumerate(self._lines):
                line.set_description_str(texts[slot] if slot < len(texts) else "")
            self._bar.refresh()

    def finished(self, spec: RunSpec, failed: bool) -> None:
        """Count a run that is over."""
        self._count += 1
        now = time.monotonic()
        seconds = now - self._started.pop(spec.directory, now)
        if self._bar:
            self._bar.update()
        if failed or not self._bar:
            state = "FAILED" if failed else "done"
            self.say(f"{state} {spec.label} ({self._count}/{self._total}, {seconds:.1f} s)")

    def retried(self, spec: RunSpec, error: str) -> None:
        """Say that a run failed and starts again."""
        self._started.pop(spec.directory, None)
        self.say(f"retry {spec.label}: {error}")

    def elsewhere(self, spec: RunSpec) -> None:
        """Say that another batch has a run now, which this one waits for."""
        self._started.pop(spec.directory, None)
        if spec.directory not in self._waited_for:
            self._waited_for.add(spec.directory)
            self.say(f"wait for {spec.label}, which another batch runs")

    def close(self) -> None:
        """Leave the terminal as it was."""
        with suppress(OSError):  # the terminal may be gone
            for bar in [*self._lines, *filter(None, [self._bar])]:
                bar.close()
        self._lines, self._bar = [], None

    def _describe_all(self, running: Sequence[RunSpec]) -> list[str]:
        """One line a run, as wide as the terminal; the last one counts those without a line."""
        room = len(self._lines)
        if len(running) > room:
            shown = [self._describe(spec) for spec in running[: room - 1]]
            shown.append(f"and {len(running) - len(shown)} more")
        else:
            shown = [self._describe(spec) for spec in running]
        width = os.get_terminal_size(sys.stderr.fileno()).columns - 3
        return [text if len(text) <= width else f"{text[: width - 1]}…" for text in shown]

    def _describe(self, spec: RunSpec) -> str:
        seconds = int(time.monotonic() - self._started[spec.directory])
        try:
            where = spec.progress_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            where = "starting"
        where = re.sub(r"\|.*\|", "|", where)  # the drawn part of a bar needs a whole line
        return f"{spec.label}, {seconds // 60}:{seconds % 60:02d}: {where}"

    def say(self, line: str) -> None:
        """Show a line."""
        if self._bar:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
