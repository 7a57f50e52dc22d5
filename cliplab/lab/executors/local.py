"""The processes of this machine that carry runs out."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from queue import SimpleQueue
from typing import Any

from cliplab.lab.batch.spec import KERNEL_ENV, WORKER_DIED, RunError
from cliplab.lab.kernels.processes import end_with
from cliplab.lab.kernels.scratch import remove_forsaken, scratch


class LocalExecutor(ThreadPoolExecutor):
    """``jobs`` worker processes, each a pool of its own: one that dies fails only its own run.

    Workers and their kernels end with this process, however it ends: they hold the reading end of a
    pipe whose writing end is here only.
    """

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        os.environ.update(KERNEL_ENV)  # no threads where workers are forked from
        self._context = get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":  # what every worker needs, imported once
            preload = [
                "cliplab.lab.batch.worker",
                "cliplab.lab.kernels.light_jsonschema",
                "papermill",
            ]
            self._context.set_forkserver_preload(preload)
        self._reader, self._leash = self._context.Pipe(duplex=False)
        self._idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(jobs):
            self._idle.put(self._new_pool())

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1,
            mp_context=self._context,
            initializer=_begin,
            initargs=(self._reader, dict(os.environ)),
        )

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` in an idle worker, as soon as there is one."""
        return super().submit(self._run, fn, *args, **kwargs)

    def _run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        pool = self._idle.get()  # there are as many pools as threads
        try:
            return pool.submit(fn, *args, **kwargs).result()
        except BrokenProcessPool:
            pool.shutdown(wait=False)
            pool = self._new_pool()
            raise RunError(WORKER_DIED, died=True) from None
        finally:
            self._idle.put(pool)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With ``wait``, end the workers when they have done what was submitted."""
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait:
            self._end()

    def kill(self) -> None:
        """End workers and kernels now; what is in flight fails, what waits is cancelled."""
        super().shutdown(wait=False, cancel_futures=True)
        self._end()
        super().shutdown(wait=True)

    def _end(self) -> None:
        self._leash.close()
        remove_forsaken()


def _begin(reader: Any, env: dict[str, str]) -> None:
    """In a worker: leave the terminal's process group (Ctrl-C), and end when the leash does.

    The environment is this process's at the time, not that of the server it was forked from.
    """
    os.environ.clear()
    os.environ.update(env)
    os.setsid()
    end_with(reader, scratch().remove)
