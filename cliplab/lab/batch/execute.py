"""A notebook carried out by papermill, and what it gave."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from cliplab.lab.batch.lastline import LastLine
from cliplab.lab.batch.spec import RunError, RunSpec
from cliplab.lab.kernels.forkserver import PROVISIONER, ForkServer
from cliplab.lab.kernels.quick_imports import papermill
from cliplab.lab.kernels.scratch import scratch
from cliplab.lab.notebook.cells import load_cells
from cliplab.lab.runs.record import MIME


def execute(spec: RunSpec, server: ForkServer | None) -> Any:
    """The executed notebook, also in its scratch file; papermill runs it in its own folder."""
    import logging

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

    with tempfile.TemporaryDirectory(dir=scratch().folder) as sockets:
        return papermill().execute_notebook(
            _literal(spec.notebook),
            _literal(spec.scratch_path),
            parameters=spec.params,
            kernel_name="python3",
            cwd=str(spec.notebook.parent),
            progress_bar=False,
            start_timeout=120,
            iopub_timeout=60,
            shutdown_kernel="immediate",
            stderr_file=bar,
            on_cell_start=show,
            config=Config({"KernelManager": private_sockets(sockets)}),
        )


def private_sockets(folder: str) -> dict[str, str]:
    """A kernel's sockets in a folder of its own: no ports, so no clashes (paths must be short)."""
    transport = "ipc" if len(folder) < 80 else "tcp"
    return {"transport": transport, "connection_file": f"{folder}/kernel.json"}


def _literal(path: Path) -> str:
    """A path papermill takes as it is: it formats ``{…}`` in paths."""
    return str(path).replace("{", "{{").replace("}", "}}")


def payload_of(notebook: Any) -> dict[str, Any]:
    """What the notebook gave to ``record``: rows at most once, and values, the last of a name."""
    payload: dict[str, Any] = {"rows": [], "curves": [], "choices": {}, "provenance": {}}
    values: dict[str, Any] = {}
    given = outputs_of(notebook, MIME)
    if (tables := sum("rows" in one for one in given)) > 1:
        raise RunError(f"record(rows) must be called once in the notebook, not {tables} times")
    for one in given:
        values |= one.get("values", {})
        payload |= one
    return payload | {"values": values}


def outputs_of(notebook: Any, mime: str) -> list[dict[str, Any]]:
    """The outputs of that type, as plain values: no nbformat types."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [json.loads(json.dumps(o["data"][mime])) for o in outputs if mime in o.get("data", {})]


def failure_of(error: Exception, exceeded: str | None) -> RunError:
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
