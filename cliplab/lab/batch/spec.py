"""One run to do, as a value; when it is done, how it can fail."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliplab.lab.runs.files import set_aside
from cliplab.lab.runs.record import RunRecord

# One thread a kernel: the batch parallelises over runs, and numbers do not depend on --jobs.
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",  # its greeting would stand in the first cell that imports it
}
WORKER_DIED = "the worker process died: killed, or out of memory"


@dataclass(frozen=True)
class How:
    """How a run is carried out; of all this, its numbers depend on ``cwd`` and ``kernel_name``.

    ``retries``: None is 1 for the death of a process and 0 for an exception, a number is for both.
    ``cwd``: where the notebook runs, else its own folder. ``kernel_name``: a kernel that Jupyter
    knows, else the notebook's own. ``output``: a copy of the executed notebook; this and the files
    that output is added to may name parameters, as ``out/{lr}.ipynb`` (see ``delivery.placed``).
    """

    budget_s: float = 3600.0
    memory_gb: float | None = None
    kernel: str = "fork"  # or stock
    retries: int | None = None
    cwd: Path | None = None
    kernel_name: str | None = None
    start_timeout_s: float = 120.0
    cell_timeout_s: float | None = None
    autosave_s: float = 30.0
    log_output: bool = False
    stdout_file: Path | None = None
    stderr_file: Path | None = None
    report_mode: bool = False
    output: Path | None = None


@dataclass(frozen=True)
class RunSpec:
    """One run to do: everything it depends on, and where its files go.

    They are in ``results/name/preset/key``; ``results`` is the folder of all results. ``given``:
    those of the parameters that papermill puts into the notebook, which has the others as they are.
    """

    notebook: Path
    name: str
    preset: str
    params: dict[str, Any]
    key: str
    code_key: str
    results: Path
    label: str
    how: How = How()
    given: dict[str, Any] = field(default_factory=dict)
    kernel_name: str = "python3"
    language: str = "python"
    not_before: str = ""  # a record that is older does not count (UTC)

    @property
    def directory(self) -> Path:
        """The folder of this run alone."""
        return self.results / self.name / self.preset / self.key[:16]

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
    def scratch_path(self) -> Path:
        """The notebook while it is executed."""
        return self.directory / "running.ipynb"

    @property
    def error_path(self) -> Path:
        """Why the last attempt failed."""
        return self.directory / "error.txt"

    @property
    def progress_path(self) -> Path:
        """Holds "cell/cells", and the notebook's own bar, while the run goes on."""
        return self.directory / "progress"

    @property
    def evidence(self) -> Path | None:
        """The notebook of a failed run, as far as it got, if it left one."""
        paths = (self.directory / name for name in ("failed.ipynb", "notebook.ipynb"))
        return next(filter(Path.exists, paths), None)


class RunError(RuntimeError):
    """A run that failed, in which cell; no ``retry`` where it would fail again.

    ``died``: not the notebook raised an exception, but one of the run's processes ended.
    """

    def __init__(
        self, message: str, retry: bool = True, cell: str = "", died: bool = False
    ) -> None:
        super().__init__(message)
        self.retry, self.cell, self.died = retry, cell, died


@dataclass(frozen=True)
class Failure:
    """A run that failed: the last line of its error, in which cell, and whether to try again."""

    spec: RunSpec
    error: str
    cell: str = ""
    retry: bool = False


def load_finished(spec: RunSpec) -> RunRecord | None:
    """The record of a run that is done, None if it is not; ``ValueError`` if damaged."""
    if not spec.record_path.exists():
        return None
    record = RunRecord.load(spec.record_path)
    if record.key != spec.key:
        why = f"its key is {record.key[:16]}, not {spec.key[:16]}"
        raise ValueError(f"corrupt record {spec.record_path}: {why}")
    return record if str(record.provenance.get("started", "")) >= spec.not_before else None


def finished_or_set_aside(spec: RunSpec) -> RunRecord | None:
    """The record of a run that is done; a damaged one makes room for another. Under its lock."""
    try:
        return load_finished(spec)
    except ValueError:
        set_aside(spec.record_path)
        return None


def find_done(specs: Iterable[RunSpec]) -> tuple[dict[Path, RunRecord], list[str]]:
    """The records of the runs that are done, by directory; and what is wrong with damaged ones."""
    done, damaged = {}, []
    for spec in specs:
        try:
            if record := load_finished(spec):
                done[spec.directory] = record
        except ValueError as error:
            damaged.append(str(error))
    return done, damaged


def state(spec: RunSpec) -> str:
    """``"done"``, ``"to run"`` or ``"damaged"``."""
    try:
        return "done" if load_finished(spec) else "to run"
    except ValueError:
        return "damaged"


def utc(seconds: float) -> str:
    """A moment as text that sorts by time."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"
