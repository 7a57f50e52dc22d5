"""One run of one notebook, in the process that carries it out."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cliplab.lab.batch.budget import Budget
from cliplab.lab.batch.execute import execute, failure_of, is_ours
from cliplab.lab.batch.folder import claimed, leave_done, leave_failed
from cliplab.lab.batch.payload import payload_of
from cliplab.lab.batch.spec import KERNEL_ENV, RunError, RunSpec, finished_or_set_aside, utc
from cliplab.lab.kernels.forkserver import fork_server
from cliplab.lab.kernels.scratch import scratch
from cliplab.lab.kernels.watching import watching
from cliplab.lab.notebook.kernel import kernelspec
from cliplab.lab.notebook.presets import SEEDS
from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.keys import KIND, closure, environment, made_of, run_key
from cliplab.lab.runs.provenance import surroundings
from cliplab.lab.runs.reads import undeclared
from cliplab.lab.runs.record import RunRecord
from cliplab.lab.runs.versions import ask_for, versions

_alone = threading.Lock()  # papermill and the budget: one run at a time in a process


def run_one(spec: RunSpec) -> RunRecord:
    """Execute the notebook and write its record last, or raise :class:`RunError`.

    One that is done, maybe since it was planned, is not executed. A failure leaves notebook.ipynb
    and error.txt.
    :class:`~cliplab.lab.batch.lock.Taken`: another batch runs it now.
    """
    with _alone, claimed(spec):
        return finished_or_set_aside(spec) or _run(spec)


def _run(spec: RunSpec) -> RunRecord:
    spec.error_path.unlink(missing_ok=True)
    os.environ.update(KERNEL_ENV)
    budget = Budget(spec.how.budget_s, spec.how.memory_gb)
    try:
        return _carry_out(spec, budget)
    except Exception as error:
        failure = failure_of(error, budget.exceeded)
        leave_failed(spec, failure, str(error.__cause__ or error))
        raise failure from None


def _carry_out(spec: RunSpec, budget: Budget) -> RunRecord:
    how, argv = spec.how, kernelspec(spec.kernel_name).argv
    folder = (how.cwd or spec.notebook.parent).resolve()  # what os.getcwd() says there
    server = fork_server(folder) if how.kernel == "fork" and is_ours(argv) else None
    if server:
        server.kernels.clear()
    started, wall, cpu = time.time(), time.perf_counter(), _children_cpu_s()
    with budget, TemporaryDirectory(dir=scratch().folder) as sockets:
        code = closure(spec.notebook, beside=how.cwd)
        ask_for(versions(code.outside))
        if code.key != spec.code_key:
            raise RunError("the code or its data changed after the batch was planned", retry=False)
        opened = Path(sockets, "opened")
        payload = payload_of(execute(spec, server, watching(argv, opened), sockets))
        told = _told(spec, code, payload["provenance"], folder)
        after = closure(spec.notebook, beside=how.cwd)
        if after.key != spec.code_key:
            what = ", ".join(code.unlike(after)) or "the notebook"
            raise RunError(f"changed while it ran: {what}", retry=False)
        if unknown := undeclared(opened, code):
            told["undeclared"] = unknown
    leave_done(spec)
    forked = server.kernels if server else []
    told |= {
        "kernel": "forked" if forked else "stock",
        "kernel_name": spec.kernel_name,
        "started": utc(started),
        "finished": utc(time.time()),
        "wall_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(_children_cpu_s() - cpu + sum(kernel.cpu_s for kernel in forked), 3),
    }
    if all(seed in spec.params for seed in SEEDS):
        told["seeds"] = [spec.params[seed] for seed in SEEDS]
    record = RunRecord(
        spec.name,
        spec.preset,
        spec.params,
        spec.key,
        spec.code_key,
        **payload | {"provenance": told},
        directory=spec.directory,
        made_of={"key": KIND, **made_of(code)},
    )
    record.write(spec.record_path)
    return record


def _told(spec: RunSpec, code: Closure, told: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Where the numbers come from, as the kernel says it, else as it is known from outside.

    Numbers made on another kind of device, or by other versions, than the key says are refused.
    """
    planned = environment(code, spec.kernel_name)
    if not {"versions", "hardware"} <= told.keys():  # no cliplab in the kernel
        around = surroundings(folder)
        return around | told | {"versions": {**around["versions"], **_versions(planned)}}
    recorded, device = told["versions"], told["hardware"]["device"]
    found = planned | {name: recorded[name] for name in planned if name in recorded}
    found["device"] = device if device in ("cpu", "mps") else "cuda"
    if "python" in planned:
        found["python"] = ".".join(recorded["python"].split(".")[:2])
    if run_key(spec.code_key, spec.params, found) != spec.key:
        where = ", ".join(f"{name} {value}" for name, value in found.items())
        raise RunError(
            f"made in another environment than the batch was planned in: {where}", retry=False
        )
    return told


def _versions(planned: dict[str, Any]) -> dict[str, Any]:
    others = "device", "kernel", "cwd"
    return {name: value for name, value in planned.items() if name not in others}


def _children_cpu_s() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
