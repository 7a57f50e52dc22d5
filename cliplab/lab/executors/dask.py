"""Where runs are carried out: processes of this machine, a Dask cluster, or jobs of a queue.

The machines of a cluster see notebooks and results under the same paths. A run's result is its
record there, so a run that is submitted again, because its scheduler was lost, is not run again.
"""

from __future__ import annotations

import pickle
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

from cliplab.lab.batch.oneline import one_line
from cliplab.lab.batch.spec import WORKER_DIED, RunError

Call = tuple[Future[Any], partial[Any]]  # what its caller holds, and what to run
ANSWER_S = 10.0  # a scheduler answers within
PATIENCE_S = 60.0  # without any worker, before that is said


class DaskExecutor(Executor):
    """Runs on the workers of a Dask cluster: an address, or a cluster that ends with this executor.

    A call is begun once: where its worker dies it fails with :class:`RunError`, however many deaths
    the scheduler allows. What a lost connection or a new scheduler forgets is submitted again until
    it is done. No more is submitted than there are worker threads: a scheduler blames what waits at
    a worker that dies with what killed it. One thread does it all, so that ``submit`` returns at
    once; it calls ``tend`` now and then.
    """

    def __init__(self, cluster: Any, tend: Callable[[], None] = lambda: None) -> None:
        self._cluster, self._tend = cluster, tend
        self._client = self._connect()
        self._waiting: deque[Call] = deque()
        self._flying: dict[Any, Call] = {}
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._stopping = self._killed = self._said = False
        self._alone_since = time.monotonic()
        self._thread = threading.Thread(target=self._carry_out, name="dask executor", daemon=True)
        self._thread.start()

    def _connect(self, loop: Any = None) -> Any:
        from distributed import Client

        client: Future[Any] = Future()

        def connect() -> None:
            try:
                options = {"timeout": ANSWER_S, "set_as_default": False, "loop": loop}
                client.set_result(Client(self._cluster, **options))
            except Exception as error:  # what listens there may be anything
                client.set_exception(error)

        threading.Thread(target=connect, name="dask connect", daemon=True).start()
        try:
            return client.result(2 * ANSWER_S)  # what never answers is not bound by a timeout
        except Exception as error:
            why = one_line(error)
            raise ValueError(f"no Dask scheduler answers at {self._cluster}: {why}") from None

    @property
    def dashboard(self) -> str | None:
        """The link to the cluster's dashboard, if it has one."""
        link: str | None = self._client.dashboard_link
        return link if find_spec("bokeh") else None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` on a worker, as soon as one is free."""
        ours: Future[Any] = Future()
        with self._lock:
            if self._stopping:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append((ours, partial(fn, *args, **kwargs)))
        self._wake.set()
        return ours

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close when what was submitted is done, and with ``wait`` return only then."""
        with self._lock:
            self._stopping = True
            if cancel_futures:
                self._waiting = deque(c for c in self._waiting if not c[0].cancel())
        self._wake.set()
        if wait:
            self._thread.join()

    def kill(self) -> None:
        """End what is in flight, as far as the workers can be reached, cancel the rest, close."""
        self._killed = True
        self.shutdown(wait=False)
        self._thread.join(3 * ANSWER_S)

    def _carry_out(self) -> None:
        while not self._killed and (self._waiting or self._flying or not self._stopping):
            self._wake.wait(timeout=1)
            self._wake.clear()
            self._land()
            self._launch()
            self._tend()
        self._close()

    def _land(self) -> None:
        """Hand over what is done; what was forgotten waits again."""
        for theirs in [future for future in self._flying if future.done()]:
            call = self._flying.pop(theirs)
            if _hand_over(theirs, call[0]):
                with suppress(Exception):
                    self._forget(theirs)
            else:
                self._waiting.appendleft(call)

    def _forget(self, theirs: Any) -> None:
        """Let the scheduler forget that a call was begun."""
        clear = self._client.scheduler.event_clear
        self._client.sync(clear, name=theirs.key, callback_timeout=ANSWER_S)

    def _launch(self) -> None:
        """Submit as many calls as there are free workers."""
        threads = self._threads() if self._waiting or self._flying else 0
        self._say_if_alone(threads)
        free = threads - len(self._flying)
        while free > 0 and (call := self._next()):
            ours, run = call
            key = f"{run.func.__name__}-{uuid4().hex}"
            try:
                theirs = self._client.submit(_begin, key, pickle.dumps(run), key=key, pure=False)
                theirs.add_done_callback(lambda _: self._wake.set())
                self._flying[theirs] = call
            except Exception as error:
                if self._client.status == "running":  # so it is the call that cannot be sent
                    ours.set_exception(error)
                else:
                    self._waiting.appendleft(call)
            free -= 1

    def _say_if_alone(self, threads: int) -> None:
        """Once for each time that runs wait for workers and none comes."""
        if threads or not (self._waiting or self._flying):
            self._alone_since = time.monotonic()
            self._said = False
        elif not self._said and time.monotonic() > self._alone_since + PATIENCE_S:
            self._said = True
            where = "no Dask worker is there: see the queue, the jobs' logs, or the scheduler's"
            print(f"waiting: {where}", file=sys.stderr)

    def _next(self) -> Call | None:
        with self._lock:
            while self._waiting:
                call = self._waiting.popleft()
                if call[0].running() or call[0].set_running_or_notify_cancel():
                    return call
        return None

    def _threads(self) -> int:
        """Threads that the workers have; 0 while the scheduler is away."""
        try:
            if self._client.status == "closed":  # it gave up
                self._client = self._connect(self._client.loop)
            count = self._client.scheduler.ncores
            return sum(self._client.sync(count, callback_timeout=ANSWER_S).values())
        except Exception:
            return 0

    def _close(self) -> None:
        for ours, _ in [*self._flying.values(), *self._waiting]:
            if ours.running():
                ours.set_exception(RunError("stopped"))
            elif ours.cancel():
                ours.set_running_or_notify_cancel()
        with suppress(Exception):
            if self._flying:
                self._client.run(_end, {f.key for f in self._flying}, on_error="ignore")
                self._client.cancel(list(self._flying), force=True)
                for theirs in self._flying:
                    self._forget(theirs)
        for close in (self._client.close, getattr(self._cluster, "close", None)):
            with suppress(Exception):
                close and close(timeout=ANSWER_S)


def _hand_over(theirs: Any, ours: Future[Any]) -> bool:
    """Settle our future as Dask's; False if Dask lost it, which says nothing of the run."""
    from distributed.scheduler import KilledWorker

    try:
        if theirs.status == "error":
            error = theirs.exception(timeout=ANSWER_S)
            died = RunError(WORKER_DIED, died=True)
            ours.set_exception(died if isinstance(error, KilledWorker) else error)
        elif theirs.status == "finished":
            ours.set_result(theirs.result(timeout=ANSWER_S))
    except (Exception, CancelledError):
        return False
    return ours.done()


def _begin(key: str, call: bytes) -> Any:
    """On a worker: carry out a call, unless another one has begun it, and so has died."""
    from distributed import Event

    begun = Event(key)
    if begun.is_set():
        raise RunError(WORKER_DIED, died=True)
    begun.set()
    return pickle.loads(call)()


def _end(keys: set[str], dask_worker: Any) -> None:
    """On a worker: kill the kernel of the run, if it is one of these and the only one."""
    from cliplab.lab.kernels.processes import descendants, end

    if dask_worker.state.nthreads == 1 and keys & {t.key for t in dask_worker.state.executing}:
        end(descendants())
