"""What a batch shows while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cliplab.lab.worker import RunSpec


class Progress:
    """One bar for the batch with the time left, one line for each running notebook."""

    def __init__(self, total: int, jobs: int) -> None:
        self._started: dict[Path, float] = {}
        self._total, self._count = total, 0
        self._bar: Any = None
        self._lines: list[Any] = []
        if sys.stderr.isatty() and total:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="run", desc="runs", position=0)
            self._lines = [
                tqdm(bar_format="  {desc}", position=slot + 1, leave=False) for slot in range(jobs)
            ]

    def refresh(self, running: Sequence[RunSpec]) -> None:
        """Show what runs now."""
        for spec in running:
            if spec.directory not in self._started:
                self._started[spec.directory] = time.monotonic()
                if not self._bar:
                    self._say(f"start {spec.label}")
        for slot, line in enumerate(self._lines):
            line.set_description_str(self._describe(running[slot]) if slot < len(running) else "")
        if self._bar:
            self._bar.refresh()

    def finished(self, spec: RunSpec, failure: object) -> None:
        """Count a run that is over."""
        self._count += 1
        seconds = time.monotonic() - self._started.pop(spec.directory, time.monotonic())
        if self._bar:
            self._bar.update()
        if failure or not self._bar:
            state = "FAILED" if failure else "done"
            self._say(f"{state} {spec.label} ({self._count}/{self._total}, {seconds:.1f} s)")

    def retried(self, spec: RunSpec, error: str) -> None:
        """Say that a run failed and starts again."""
        self._started.pop(spec.directory, None)
        self._say(f"retry {spec.label}: {error}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        for bar in [*self._lines, *filter(None, [self._bar])]:
            bar.close()

    def _describe(self, spec: RunSpec) -> str:
        seconds = int(time.monotonic() - self._started[spec.directory])
        try:
            cell = spec.progress_path.read_text(encoding="utf-8")
        except OSError:
            cell = "starting"
        return f"{spec.label}: {cell}, {seconds // 60}:{seconds % 60:02d}"

    def _say(self, line: str) -> None:
        if self._bar:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
