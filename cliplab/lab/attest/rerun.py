"""One short run of a notebook with the code of some checkout, and which functions it entered."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cliplab.lab.batch.execute import private_sockets
from cliplab.lab.batch.payload import outputs_of
from cliplab.lab.batch.spec import KERNEL_ENV
from cliplab.lab.runs.record import MIME

TRACE = "application/vnd.cliplab.trace+json"
_START = """
import sys as _sys, threading as _threading
_entered = {}
def _enter(frame, event, _, entered=_entered):
    if event == "call":
        entered[id(frame.f_code)] = frame.f_code
_threading.setprofile(_enter)
_sys.setprofile(_enter)
"""
_STOP = """
_sys.setprofile(None)
_threading.setprofile(None)
from IPython.display import display as _display
_below = lambda path: str(path).startswith(ROOT) and path[len(ROOT):]
_codes = list(_entered.values())
_modules = [getattr(module, "__file__", None) for module in list(_sys.modules.values())]
_display({MIME: {
    "functions": sorted({(_below(c.co_filename), c.co_firstlineno)
                         for c in _codes if _below(c.co_filename)}),
    "cells": sorted({c.co_qualname.split(".<locals>")[0] for c in _codes
                     if "ipykernel_" in c.co_filename or c.co_filename.startswith("<ipython")}),
    "modules": sorted({_below(file) for file in _modules if file and _below(file)}),
}}, raw=True)
"""


def rerun(
    tree: Path, notebook: Path, params: Mapping[str, Any], *, traced: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the notebook records, and what it entered of ``tree/cliplab`` and its own cells.

    In a stock kernel with one thread, in the notebook's folder, with ``tree`` before all else on
    the path. The trace is empty unless asked for. ``ValueError``: the notebook failed.
    """
    import nbformat
    import papermill
    from jupyter_client.provisioning import KernelProvisionerFactory
    from traitlets.config import Config

    logging.getLogger("papermill").setLevel(logging.CRITICAL + 1)
    KernelProvisionerFactory.instance().default_provisioner_name = "local-provisioner"
    tree = tree.resolve()
    document = nbformat.read(notebook, as_version=4)
    if traced:
        stop = _STOP.replace("ROOT", repr(f"{tree}{os.sep}")).replace("MIME", repr(TRACE))
        cell = nbformat.v4.new_code_cell
        document.cells = [cell(_START), *document.cells, cell(stop)]
    with tempfile.TemporaryDirectory() as scratch, _environment(PYTHONPATH=str(tree), **KERNEL_ENV):
        copy = Path(scratch) / "notebook.ipynb"
        nbformat.write(document, copy)
        try:
            done = papermill.execute_notebook(
                str(copy),
                str(Path(scratch) / "done.ipynb"),
                parameters=dict(params),
                kernel_name="python3",
                cwd=str(notebook.parent),
                progress_bar=False,
                config=Config({"KernelManager": private_sockets(scratch)}),
            )
        except papermill.PapermillExecutionError as error:
            raise ValueError(f"{error.ename}: {error.evalue}") from None
    payload = _only(done, MIME)
    trace = _only(done, TRACE) if traced else {}
    if traced and "cliplab/__init__.py" not in trace["modules"]:
        raise ValueError(f"the kernel did not import the cliplab of {tree}")
    return payload, trace


def _only(notebook: Any, mime: str) -> dict[str, Any]:
    """The one output of that type."""
    found = [content for _, content in outputs_of(notebook, re.escape(mime))]
    if len(found) != 1:
        raise ValueError(f"expected one call of record(...), found {len(found)}")
    return found[0]


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
