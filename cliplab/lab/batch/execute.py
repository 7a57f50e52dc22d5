"""A notebook carried out by papermill."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliplab.lab.batch.lastline import LastLine
from cliplab.lab.batch.outlets import Outlets
from cliplab.lab.batch.spec import RunError, RunSpec
from cliplab.lab.kernels.forkserver import PROVISIONER, ForkServer
from cliplab.lab.kernels.quick_imports import papermill
from cliplab.lab.notebook.cells import read_notebook
from cliplab.lab.notebook.kernel import is_this_python


def is_ours(argv: Sequence[str]) -> bool:
    """Whether a kernel is ipykernel in this Python, which can be forked."""
    return is_this_python(argv[0]) and list(argv[1:3]) == ["-m", "ipykernel_launcher"]


def execute(spec: RunSpec, server: ForkServer | None, arguments: list[str], sockets: str) -> Any:
    """The executed notebook, also in its scratch file.

    ``arguments``: what the kernel's command is to have beyond its kernelspec; ``sockets``: a folder
    for the kernel's.
    """
    engine = papermill()
    from jupyter_client.provisioning import KernelProvisionerFactory
    from papermill.exceptions import PapermillExecutionError
    from papermill.execute import ERROR_MARKER_TAG
    from traitlets.config import Config

    from cliplab.lab.batch.client import ENGINE, Seen

    provisioners = KernelProvisionerFactory.instance()
    ours = PROVISIONER if server else "cliplab-leash"
    known = ours in provisioners.provisioners  # not where cliplab is imported without its metadata
    provisioners.default_provisioner_name = ours if known else "local-provisioner"
    cells = read_notebook(spec.notebook)["cells"]
    own = [c for c in cells if ERROR_MARKER_TAG not in c.get("metadata", {}).get("tags", [])]
    seen, bar, how = Seen(), LastLine(spec.progress_path), spec.how
    try:
        with Outlets(spec, bar) as outlets:
            return engine.execute_notebook(
                _literal(spec.notebook),
                _literal(spec.scratch_path),
                **_filled_in(spec),
                cwd=str(how.cwd or spec.notebook.parent),
                progress_bar=False,
                start_timeout=math.ceil(how.start_timeout_s),
                timeout=math.ceil(how.cell_timeout_s) if how.cell_timeout_s else None,
                autosave_cell_every=how.autosave_s,
                iopub_timeout=60,
                shutdown_kernel="immediate",
                extra_arguments=arguments,
                config=Config({"KernelManager": private_sockets(sockets)}),
                engine_name=ENGINE,
                seen=seen,
                own_cells=len(own),
                show=bar.begin,
                take=outlets.take,
            )
    except PapermillExecutionError as error:
        raise RunError(seen.reason, cell=seen.cell) from error


def prepare(spec: RunSpec) -> Path:
    """Write the notebook with its parameters, not executed; the path."""
    path = spec.how.output or spec.directory / "prepared.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    papermill().execute_notebook(
        _literal(spec.notebook), _literal(path), prepare_only=True, **_filled_in(spec)
    )
    return path


def _filled_in(spec: RunSpec) -> dict[str, Any]:
    """papermill's options for the parameters, and the language to write them in."""
    import logging

    logging.getLogger("papermill").setLevel(logging.CRITICAL + 1)  # errors travel as exceptions
    return {
        "parameters": spec.given,
        "kernel_name": spec.kernel_name,
        "language": spec.language,
        "report_mode": spec.how.report_mode,
    }


def private_sockets(folder: str) -> dict[str, str]:
    """A kernel's sockets in a folder of its own: no ports, so no clashes (paths must be short)."""
    transport = "ipc" if len(folder) < 80 else "tcp"
    return {"transport": transport, "connection_file": f"{folder}/kernel.json"}


def _literal(path: Path) -> str:
    """A path papermill takes as it is: it formats ``{…}`` in paths."""
    return str(path).replace("{", "{{").replace("}", "}}")


def failure_of(error: Exception, exceeded: str | None) -> RunError:
    """The one line that says why a run failed."""
    if exceeded:
        return RunError(exceeded, retry=False)
    if isinstance(error, RunError):
        return error
    lines = re.findall(r"\S.*", str(error)) or [""]
    if isinstance(error, TimeoutError):  # nbclient's goes on with the source of the cell
        return RunError(lines[0])
    name = type(error).__name__
    return RunError(lines[-1] if lines[-1].startswith(name) else f"{name}: {lines[-1]}")
