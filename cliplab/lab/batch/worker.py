"""One run of one notebook, in the process that carries it out."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cliplab.lab.batch.budget import Budget
from cliplab.lab.batch.execute import _execute, _failure, _payload
from cliplab.lab.batch.lock import NoLocks, Taken, locked
from cliplab.lab.batch.spec import KERNEL_ENV, RunError, RunSpec, load_finished, utc
from cliplab.lab.kernels.forkserver import fork_server
from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.keys import KIND, closure, made_of, run_key
from cliplab.lab.runs.record import RunRecord
from cliplab.lab.runs.versions import ask_for, versions

_alone = threading.Lock()  # papermill and the budget: one run at a time in a process


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
            code = closure(spec.notebook)
            ask_for(versions(code.outside))
            if code.key != spec.code_key:
                raise RunError("the code changed after the batch was planned", retry=False)
            payload = _payload(_execute(spec, _scratch(spec), server))
            _check_environment(spec, code, payload["provenance"])
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
        made_of={"key": KIND, **made_of(code)},
    )
    record.write(spec.record_path)
    return record


def _check_environment(spec: RunSpec, code: Closure, provenance: dict[str, Any]) -> None:
    """Refuse numbers made on another kind of device, or by other versions, than the key says."""
    if "versions" not in provenance:
        return
    recorded, device = provenance["versions"], provenance["hardware"]["device"]
    found = {
        "device": device if device in ("cpu", "mps") else "cuda",
        "python": ".".join(recorded["python"].split(".")[:2]),
        **{name: recorded.get(name) for name in versions(code.outside)},
    }
    if run_key(spec.code_key, spec.params, found) != spec.key:
        where = ", ".join(f"{name} {value}" for name, value in found.items())
        raise RunError(
            f"made in another environment than the batch was planned in: {where}", retry=False
        )


def _children_cpu_s() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
