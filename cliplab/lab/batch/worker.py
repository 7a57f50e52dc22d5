"""One run of one notebook, in the process that carries it out."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from cliplab.lab.batch.budget import Budget
from cliplab.lab.batch.execute import execute, failure_of, payload_of
from cliplab.lab.batch.folder import claimed, leave_done, leave_failed
from cliplab.lab.batch.spec import KERNEL_ENV, RunError, RunSpec, finished_or_set_aside, utc
from cliplab.lab.kernels.forkserver import fork_server
from cliplab.lab.notebook.presets import SEEDS
from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.keys import KIND, closure, made_of, run_key
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
    server = fork_server(spec.notebook.parent) if spec.how.kernel == "fork" else None
    if server:
        server.kernels.clear()
    started, wall, cpu = time.time(), time.perf_counter(), _children_cpu_s()
    with Budget(spec.how.budget_s, spec.how.memory_gb) as budget:
        try:
            code = closure(spec.notebook)
            ask_for(versions(code.outside))
            if code.key != spec.code_key:
                raise RunError("the code changed after the batch was planned", retry=False)
            payload = payload_of(execute(spec, server))
            _check_environment(spec, code, payload["provenance"])
        except Exception as error:
            failure = failure_of(error, budget.exceeded)
            leave_failed(spec, failure, str(error))
            raise failure from None
    leave_done(spec)
    forked = server.kernels if server else []
    payload["provenance"] |= {
        "kernel": "forked" if forked else "stock",
        "seeds": [spec.params.get(name) for name in SEEDS],
        "started": utc(started),
        "finished": utc(time.time()),
        "wall_s": round(time.perf_counter() - wall, 3),
        "cpu_s": round(_children_cpu_s() - cpu + sum(kernel.cpu_s for kernel in forked), 3),
    }
    record = RunRecord(
        spec.name,
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
