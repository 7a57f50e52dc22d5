"""One run of one notebook, and the local processes that carry runs out."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cliplab.lab.keys import code_key
from cliplab.lab.parameters import load_cells
from cliplab.lab.runs import MIME, RunRecord, write_atomic

# One thread a kernel: the batch parallelises over runs, and numbers do not depend on --jobs.
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}


@dataclass(frozen=True)
class RunSpec:
    """One run to do: everything it depends on, and where its files go."""

    notebook: Path
    preset: str
    params: dict[str, Any]
    key: str
    code_key: str
    directory: Path
    budget_s: float
    label: str

    @property
    def record_path(self) -> Path:
        """The file whose presence, valid and with this key, means done."""
        return self.directory / "record.json"

    @property
    def progress_path(self) -> Path:
        """Holds "cell/cells" while the run goes on."""
        return self.directory / "progress"


class RunError(RuntimeError):
    """A run that failed; ``retry`` is false where a second attempt would fail as well."""

    def __init__(self, message: str, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


def load_finished(spec: RunSpec) -> RunRecord | None:
    """The record of a run that is done, None if it is not; ``ValueError`` if damaged."""
    try:
        record = RunRecord.load(spec.record_path)
    except FileNotFoundError:
        return None
    if record.key != spec.key:
        why = f"its key is {record.key[:16]}, not {spec.key[:16]}"
        raise ValueError(f"corrupt record {spec.record_path}: {why}; delete it to run again")
    return record


def run_one(spec: RunSpec) -> RunRecord:
    """Execute the notebook and write its record last, or raise :class:`RunError`.

    The notebook executes under a name of its own, so that batches sharing a results directory do
    not meet; a failure leaves notebook.ipynb and error.txt.
    """
    if record := load_finished(spec):  # by another batch, meanwhile
        return record
    spec.directory.mkdir(parents=True, exist_ok=True)
    rescue_notebook(spec.directory)
    error_path = spec.directory / "error.txt"
    error_path.unlink(missing_ok=True)
    scratch = spec.directory / f"running-{socket.gethostname()}-{os.getpid()}.ipynb"
    started, wall, cpu = time.time(), time.perf_counter(), _children_cpu_s()
    try:
        if code_key(spec.notebook) != spec.code_key:
            raise RunError("the code changed after the batch was planned", retry=False)
        payload = _payload(_execute(spec, scratch))
    except Exception as error:
        failure = _failure(error, spec)
        write_atomic(error_path, f"{spec.label}\n{error}\n\n{failure}\n")
        raise failure from None
    finally:
        spec.progress_path.unlink(missing_ok=True)
        if scratch.exists():
            os.replace(scratch, spec.directory / "notebook.ipynb")
    payload["provenance"] |= {
        "seeds": [spec.params["first_seed"], spec.params["n_seeds"]],
        "started": _utc(started),
        "finished": _utc(time.time()),
        "wall_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(_children_cpu_s() - cpu, 3),
    }
    record = RunRecord(
        spec.notebook.stem,
        spec.preset,
        spec.params,
        spec.key,
        spec.code_key,
        **payload,
        directory=spec.directory,
    )
    record.write(spec.record_path)
    return record


def rescue_notebook(directory: Path) -> None:
    """Keep what a process that was killed had executed: its notebook, under the usual name."""
    import psutil

    for scratch in directory.glob(f"running-{socket.gethostname()}-*.ipynb"):
        if not psutil.pid_exists(int(scratch.stem.rsplit("-", 1)[1])):
            with suppress(FileNotFoundError):
                os.replace(scratch, directory / "notebook.ipynb")
            (directory / "progress").unlink(missing_ok=True)


def _execute(spec: RunSpec, output: Path) -> Any:
    """The executed notebook; papermill runs it in its own folder, with the run's whole budget."""
    import logging

    import papermill
    from traitlets.config import Config

    os.environ.update(KERNEL_ENV)
    logging.getLogger("papermill").setLevel(logging.CRITICAL + 1)  # errors travel as exceptions
    deadline = time.monotonic() + spec.budget_s
    cells = len(load_cells(spec.notebook)) + 1  # papermill injects one

    def remaining(cell: object) -> float:
        return max(deadline - time.monotonic(), 0.01)  # 0 would mean no limit

    def show(cell: object, cell_index: int) -> None:
        spec.progress_path.write_text(f"cell {cell_index + 1}/{cells}", encoding="utf-8")

    with tempfile.TemporaryDirectory() as sockets:
        # Sockets in a private folder: no ports, so no clashes (their paths must be short).
        transport = "ipc" if len(sockets) < 80 else "tcp"
        kernel = {"transport": transport, "connection_file": f"{sockets}/kernel.json"}
        return papermill.execute_notebook(
            _literal(spec.notebook),
            _literal(output),
            parameters=spec.params,
            kernel_name="python3",
            cwd=str(spec.notebook.parent),
            progress_bar=False,
            start_timeout=120,
            iopub_timeout=60,
            shutdown_kernel="immediate",
            timeout_func=remaining,
            on_cell_start=show,
            config=Config({"KernelManager": kernel}),
        )


def _literal(path: Path) -> str:
    """A path papermill takes as it is: it formats ``{…}`` in paths."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _payload(notebook: Any) -> dict[str, Any]:
    """What the notebook gave to ``record``; it must have done so exactly once."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    payloads = [o["data"][MIME] for o in outputs if MIME in o.get("data", {})]
    if len(payloads) != 1:
        raise RunError(
            f"record(...) must be called once in the notebook, not {len(payloads)} times"
        )
    plain: dict[str, Any] = json.loads(json.dumps(payloads[0]))  # no nbformat types
    return plain


def _failure(error: Exception, spec: RunSpec) -> RunError:
    """The one line that says why a run failed."""
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    if isinstance(error, RunError):
        return error
    if isinstance(error, CellTimeoutError) and "IOPub" not in str(error):
        return RunError(f"over its budget of {spec.budget_s / 60:g} minutes", retry=False)
    if isinstance(error, DeadKernelError):
        return RunError("the kernel died: killed, or out of memory")
    lines = re.findall(r"\S.*", str(error)) or [""]
    name = getattr(error, "ename", type(error).__name__)
    return RunError(lines[-1] if lines[-1].startswith(name) else f"{name}: {lines[-1]}")


def _children_cpu_s() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class LocalExecutor(ThreadPoolExecutor):
    """``jobs`` worker processes, each a pool of its own: one that dies fails only its own run.

    Workers and their kernels end with this process, however it ends: they hold the reading end of a
    pipe whose writing end is here only.
    """

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        self._context = get_context("spawn")
        self._reader, self._leash = self._context.Pipe(duplex=False)
        self._idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(jobs):
            self._idle.put(self._new_pool())

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, mp_context=self._context, initializer=_hold_leash, initargs=(self._reader,)
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
            raise RunError("the worker process died: killed, or out of memory") from None
        finally:
            self._idle.put(pool)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With ``wait``, end the workers when they have done what was submitted."""
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait:
            self._leash.close()

    def kill(self) -> None:
        """End workers and kernels now; what is in flight fails, what waits is cancelled."""
        super().shutdown(wait=False, cancel_futures=True)
        self._leash.close()
        super().shutdown(wait=True)


def _hold_leash(reader: Any) -> None:
    """In a worker: leave the terminal's process group (Ctrl-C), and end when the leash does."""
    os.setsid()
    tempfile.tempdir = tempfile.mkdtemp(prefix="cliplab-")

    def watch() -> None:
        import psutil

        with suppress(EOFError, OSError):
            reader.recv()
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        shutil.rmtree(str(tempfile.tempdir), ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, name="leash", daemon=True).start()
