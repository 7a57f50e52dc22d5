"""Who carries the runs out, by name."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

from cliplab.extras import advice
from cliplab.lab.batch.oneline import one_line
from cliplab.lab.executors.clusters import JobQueue, local_cluster
from cliplab.lab.executors.dask import DaskExecutor
from cliplab.lab.executors.local import LocalExecutor

LOGGERS = "distributed distributed.client distributed.gc tornado.application asyncio dask_jobqueue"


ADDRESS, FILE = r"dask://([^\s/]+:\d+)", r"dask:(.+\.ya?ml)"


def check_executor(name: str) -> None:
    """``ValueError`` if no executor has such a name.

    >>> check_executor("dusk")
    Traceback (most recent call last):
    ValueError: executor 'dusk': expected local, dask, dask://host:port or dask:cluster.yaml
    """
    if not re.fullmatch(f"local|dask|{ADDRESS}|{FILE}", name):
        expected = "expected local, dask, dask://host:port or dask:cluster.yaml"
        raise ValueError(f"executor {name!r}: {expected}")


def open_executor(name: str, jobs: int) -> LocalExecutor | DaskExecutor:
    """The executor of that name; ``ValueError`` if there is none, or it cannot be had."""
    check_executor(name)
    if name == "local":
        return LocalExecutor(jobs)
    address, file = re.fullmatch(ADDRESS, name), re.fullmatch(FILE, name)
    for logger in LOGGERS.split():  # what concerns the user arrives as an exception
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        if address:
            executor = DaskExecutor(f"tcp://{address[1]}")
        elif file:
            queue = JobQueue(Path(file[1]), jobs)
            executor = DaskExecutor(queue.cluster, queue.tend)
        else:
            executor = DaskExecutor(local_cluster(jobs))
    except ModuleNotFoundError as error:
        raise ValueError(f"executor {name!r}: {advice(error.name) or error}") from None
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise ValueError(f"executor {name!r}: {one_line(error)}") from None
    if executor.dashboard:
        print(f"dashboard: {executor.dashboard}", file=sys.stderr)
    return executor
