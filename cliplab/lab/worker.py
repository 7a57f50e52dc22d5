"""One run of one notebook, in the process that carries it out."""

from __future__ import annotations

import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.lab.budget import Budget
from cliplab.lab.kernels.forkserver import PROVISIONER, ForkServer, fork_server
from cliplab.lab.lock import NoLocks, Taken, locked
from cliplab.lab.notebook.cells import load_cells
from cliplab.lab.progress import LastLine
from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.keys import PINNED, code_key, digest
from cliplab.lab.runs.record import MIME, RunRecord

# One thread a kernel: the batch parallelises over runs, and numbers do not depend on --jobs.
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
WORKER_DIED = "the worker process died: killed, or out of memory"
_alone = threading.Lock()  # papermill and the budget: one run at a time in a process


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
    memory_gb: float | None = None
    kernel: str = "fork"
    not_before: str = ""  # a record that is older does not count (UTC)

    @property
    def record_path(self) -> Path:
        """The file whose presence, valid and with this key, means done."""
        return self.directory / "record.json"

    @property
    def failed_path(self) -> Path:
        """Where the notebook of a failed attempt goes."""
        name = "failed.ipynb" if self.record_path.exists() else "notebook.ipynb"
        return self.directory / name

    @property
    def progress_path(self) -> Path:
        """Holds "cell/cells", and the notebook's own bar, while the run goes on."""
        return self.directory / "progress"


class RunError(RuntimeError):
    """A run that failed, in which cell; no ``retry`` where it would fail again."""

    def __init__(self, message: str, retry: bool = True, cell: str = "") -> None:
        super().__init__(message)
        self.retry, self.cell = retry, cell


def load_finished(spec: RunSpec) -> RunRecord | None:
    """The record of a run that is done, None if it is not; ``ValueError`` if damaged."""
    if not spec.record_path.exists():
        return None
    try:
        record = RunRecord.load(spec.record_path)
        if record.key != spec.key:
            why = f"its key is {record.key[:16]}, not {spec.key[:16]}"
            raise ValueError(f"corrupt record {spec.record_path}: {why}; delete it to run again")
    except ValueError:
        if spec.not_before:  # it is to be written anew in any case
            return None
        raise
    return record if str(record.provenance.get("started", "")) >= spec.not_before else None


def run_one(spec: RunSpec) -> RunRecord:
    """Execute the notebook and write its record last, or raise :class:`RunError`.

    A failure leaves notebook.ipynb and error.txt. :class:`Taken`: another batch runs it now.
    """
    if record := load_finished(spec):
        return record
    with _alone, _claimed(spec):
        return load_finished(spec) or _run(spec)  # it may have been done meanwhile


@contextmanager
def _claimed(spec: RunSpec) -> Iterator[None]:
    """Hold the run's folder, with nothing left of an earlier attempt that was killed."""
    try:
        with locked(spec.directory):
            for cut_short in spec.directory.glob(".*.*.*"):  # files not yet in their place
                cut_short.unlink()
            _rescue(spec)
            yield
    except NoLocks as error:
        raise RunError(f"{error}: choose another --results", retry=False) from None


def _rescue(spec: RunSpec) -> None:
    """Keep what was executed of a run that failed or was killed; not in place of a finished one."""
    with suppress(FileNotFoundError):
        os.replace(_scratch(spec), spec.failed_path)
    spec.progress_path.unlink(missing_ok=True)


def _scratch(spec: RunSpec) -> Path:
    return spec.directory / "running.ipynb"


def keep_evidence(spec: RunSpec, error: str) -> str:
    """What a killed worker could not leave: error.txt and its notebook; returns the cell it was in.

    Never raises: the disk may be full.
    """
    cell = running_cell(spec)
    with suppress(OSError, RunError, Taken), _claimed(spec):
        if not (spec.directory / "error.txt").exists():
            write_atomic(spec.directory / "error.txt", f"{spec.label}\n{error}\n")
    return cell


def running_cell(spec: RunSpec) -> str:
    """Which cell a run is in, as "3/9", if it says so."""
    try:
        text = spec.progress_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.match(r"cell (\d+/\d+)", text)
    return found[1] if found else ""


def _run(spec: RunSpec) -> RunRecord:
    error_path = spec.directory / "error.txt"
    error_path.unlink(missing_ok=True)
    os.environ.update(KERNEL_ENV)
    server = fork_server(spec.notebook.parent) if spec.kernel == "fork" else None
    if server:
        server.kernels.clear()
    started, wall, cpu = time.time(), time.perf_counter(), _children_cpu_s()
    with Budget(spec.budget_s, spec.memory_gb) as budget:
        try:
            if code_key(spec.notebook) != spec.code_key:
                raise RunError("the code changed after the batch was planned", retry=False)
            payload = _payload(_execute(spec, _scratch(spec), server))
            _check_environment(spec, payload["provenance"])
        except Exception as error:
            failure = _failure(error, budget.exceeded)
            failure.cell = running_cell(spec)
            with suppress(OSError):
                write_atomic(error_path, f"{spec.label}\n{error}\n\n{failure}\n")
            with suppress(OSError):
                _rescue(spec)
            raise failure from None
    os.replace(_scratch(spec), spec.directory / "notebook.ipynb")
    spec.progress_path.unlink(missing_ok=True)
    (spec.directory / "failed.ipynb").unlink(missing_ok=True)
    forked = server.kernels if server else []
    payload["provenance"] |= {
        "kernel": "forked" if forked else "stock",
        "seeds": [spec.params["first_seed"], spec.params["n_seeds"]],
        "started": utc(started),
        "finished": utc(time.time()),
        "wall_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(_children_cpu_s() - cpu + sum(kernel.cpu_s for kernel in forked), 3),
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


def _execute(spec: RunSpec, output: Path, server: ForkServer | None) -> Any:
    """The executed notebook; papermill runs it in its own folder."""
    import logging

    import cliplab.lab.kernels.light_jsonschema  # noqa: F401

    # isort: split
    import papermill
    from jupyter_client.provisioning import KernelProvisionerFactory
    from traitlets.config import Config

    logging.getLogger("papermill").setLevel(logging.CRITICAL + 1)  # errors travel as exceptions
    kernels = KernelProvisionerFactory.instance()
    ours = PROVISIONER if server else "cliplab-leash"
    known = ours in kernels.provisioners  # not where cliplab is imported without being installed
    kernels.default_provisioner_name = ours if known else "local-provisioner"
    cells = len(load_cells(spec.notebook)) + 1  # papermill injects one
    bar = LastLine(spec.progress_path)

    def show(cell: object, cell_index: int) -> None:
        bar.begin(f"cell {cell_index + 1}/{cells}")

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
            stderr_file=bar,
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


def _check_environment(spec: RunSpec, provenance: dict[str, Any]) -> None:
    """Refuse numbers made on another kind of device, or by other versions, than the key says."""
    if "versions" not in provenance:
        return
    versions, device = provenance["versions"], provenance["hardware"]["device"]
    found = {
        "device": device if device in ("cpu", "mps") else "cuda",
        "python": ".".join(versions["python"].split(".")[:2]),
        **{name: versions[name] for name in PINNED},
    }
    if digest([spec.code_key, spec.params, found]) != spec.key:
        where = ", ".join(f"{name} {value}" for name, value in found.items())
        raise RunError(
            f"made in another environment than the batch was planned in: {where}", retry=False
        )


def _failure(error: Exception, exceeded: str | None) -> RunError:
    """The one line that says why a run failed."""
    from nbclient.exceptions import DeadKernelError

    if exceeded:
        return RunError(exceeded, retry=False)
    if isinstance(error, RunError):
        return error
    if isinstance(error, DeadKernelError):
        return RunError("the kernel died: killed, or out of memory")
    lines = re.findall(r"\S.*", str(error)) or [""]
    name = getattr(error, "ename", type(error).__name__)
    return RunError(lines[-1] if lines[-1].startswith(name) else f"{name}: {lines[-1]}")


def _children_cpu_s() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def utc(seconds: float) -> str:
    """A moment as text that sorts by time."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"
