"""What one run may use: wall-clock time and memory, of its kernel and all that this one starts."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil

from cliplab.lab.kernels.processes import adopt_orphans, descendants, end, memory_bytes

CHECK_S = 0.5


class Budget:
    """Ends the processes started inside a ``with`` block: over the budget at once, else at its end.

    ``exceeded`` says in words which limit was passed. ``memory_gb`` counts 2**30 bytes.
    """

    def __init__(self, wall_s: float, memory_gb: float | None = None) -> None:
        self.exceeded: str | None = None
        self._wall_s, self._memory_gb = wall_s, memory_gb
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="budget", daemon=True)

    def __enter__(self) -> Budget:
        adopt_orphans()
        self._before = descendants()
        self._own_bytes = psutil.Process().memory_info().rss
        self._deadline = time.monotonic() + self._wall_s
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        for _ in range(3):  # one that was just being forked is found the next time
            if started := self._started():
                end(started)

    def _started(self) -> set[psutil.Process]:
        return descendants() - self._before

    def _watch(self) -> None:
        while not self._stop.wait(min(CHECK_S, max(self._deadline - time.monotonic(), 0.01))):
            self.exceeded = self.exceeded or self._excess()
            if self.exceeded:
                end(self._started())

    def _excess(self) -> str | None:
        if time.monotonic() > self._deadline:
            return f"over its budget of {self._wall_s / 60:.3g} minutes"
        if self._memory_gb is None:
            return None
        # What a notebook prints piles up in this process.
        room = self._memory_gb * 2**30 - (psutil.Process().memory_info().rss - self._own_bytes)
        if memory_bytes(self._started(), room) > room:
            return f"over its budget of {self._memory_gb:g} GB of memory"
        return None
