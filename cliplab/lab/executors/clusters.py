"""Dask clusters of our own: processes of this machine, or jobs of a batch system (Slurm, …)."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliplab.lab.batch.oneline import one_line
from cliplab.lab.batch.spec import KERNEL_ENV

LOOK_S = 10.0  # between looks at the jobs
LOST_S = 60.0  # a job whose workers have been gone for so long has ended
ANSWER_S = 60.0  # the queue takes a job within


def local_cluster(jobs: int) -> Any:
    """Worker processes of our own, which end when this process does."""
    import dask

    _let_workers_restart()
    # The threads that start workers, and so the workers, keep them blocked: what the terminal sends
    # is for us.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": KERNEL_ENV}):
            try:
                return _started(jobs)
            except RuntimeError:  # a worker died while it started
                return _started(jobs)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _started(jobs: int) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=jobs,
        threads_per_worker=1,
        memory_limit=None,  # it would not count the kernels
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    )


def _let_workers_restart() -> None:
    """However long it takes them to be back."""
    import dask

    # After 15 s, Dask would end what restarts a worker, and so the new one as soon as it is there:
    # on a busy machine, in the very run that the first one had.
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1000 days"})


class JobQueue:
    """A dask-jobqueue cluster that keeps its number of jobs, whatever ends them.

    The file has ``cluster`` (SLURMCluster, say), ``jobs``, and the options of that class. Dask's
    own ``adapt`` replaces no job of several workers, and none that the queue refused.
    """

    def __init__(self, path: Path, jobs: int) -> None:
        options = _read_yaml(path)
        import dask_jobqueue

        _let_workers_restart()
        kinds = [n for n in dir(dask_jobqueue) if re.fullmatch(r"(?!JobQueue)\w+Cluster", n)]
        kind, jobs = options.pop("cluster", None), options.pop("jobs", jobs)
        if kind not in kinds:
            raise ValueError(f"cluster: expected one of {', '.join(kinds)}, got {kind!r}")
        if type(jobs) is not int or jobs < 1:
            raise ValueError(f"jobs: expected the number of jobs in the queue, got {jobs!r}")
        make = getattr(dask_jobqueue, kind)
        command = shlex.split(make.job_cls.submit_command)[0]
        if not shutil.which(command):
            raise ValueError(f"{kind} needs the command {command}, which is not here")
        free_port = {"dashboard_address": ":0"}
        scheduler = free_port | options.pop("scheduler_options", {})
        self.cluster = make(**options, scheduler_options=scheduler)
        self._seen: dict[str, float] = {}
        self._said, self._next = "", 0.0
        try:
            for _ in range(jobs):  # scale would submit them where no error is seen
                self.cluster.worker_spec |= self.cluster.new_worker_spec()
            self.cluster.sync(self._submit, callback_timeout=ANSWER_S)
        except BaseException:
            with suppress(Exception):
                self.cluster.close()
            raise

    def tend(self) -> None:
        """Submit what is missing, again and again if the queue refuses it; not at every call."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_S
        try:
            self.cluster.sync(self._replace, callback_timeout=ANSWER_S)
        except Exception as error:
            why = f"no job could be submitted: {one_line(error)}"
            if why != self._said:
                print(why, file=sys.stderr)
            self._said = why

    async def _replace(self) -> None:
        """Give up the jobs that have ended, and submit as many."""
        here, now = {str(w.name) for w in self.cluster.scheduler.workers.values()}, time.monotonic()
        for name, spec in self.cluster.worker_spec.items():
            if here & {f"{name}{suffix}" for suffix in spec.get("group", [""])}:
                self._seen[name] = now
            elif now > self._seen.get(name, now) + LOST_S:
                del self._seen[name]
                if ended := self.cluster.workers.pop(name, None):
                    await ended.close()
        if set(self.cluster.worker_spec) - set(self.cluster.workers):
            await self._submit()

    async def _submit(self) -> None:
        try:
            await self.cluster._correct_state()
        finally:
            for name, job in list(self.cluster.workers.items()):
                if job.job_id is None:  # refused: there is nothing to close
                    del self.cluster.workers[name]
                    self.cluster._created.discard(job)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f"{path}: expected cluster, jobs and the options of that cluster")
    return options
