"""papermill's client, which also notes how cells and kernel ended.

Import it after :func:`cliplab.lab.kernels.quick_imports.papermill`.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import strip_color

from cliplab.lab.batch.lastline import to_see
from cliplab.lab.batch.oneline import one_line
from cliplab.lab.batch.spec import RunError

ENGINE = "cliplab"
INJECTED = "injected-parameters"
WELL = (("SystemExit", ""), ("SystemExit", "0"))  # what papermill takes for a good end


@dataclass
class Seen:
    """The last error, and in which cell, as "3/7": also one that ``raises-exception`` allows."""

    reason: str = ""
    cell: str = ""


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """Runs the cells as papermill does; a kernel that dies or does not start is a `RunError`."""

    def __init__(
        self,
        manager: Any,
        seen: Seen,
        own_cells: int,
        show: Callable[[str], None],
        take: Callable[[Any], None],
        **options: Any,
    ) -> None:
        super().__init__(manager, **options)
        self._seen, self._show, self._take, self._own = seen, show, take, own_cells
        self.on_cell_start, self.on_cell_executed = self._start, self._note

    def execute(self, **options: Any) -> Any:
        """The executed notebook; a cell that fails ends it."""
        self.reset_execution_trackers()
        kernel = self.create_kernel_manager()
        kernel.context.setsockopt(zmq.RCVHWM, 0)  # else what a cell floods us with is lost: its end
        try:
            with self.setup_kernel(**options):
                told = self.wait_for_reply(self.kc.kernel_info())["content"]
                self.nb.metadata["language_info"] = told["language_info"]
                self.papermill_execute_cells()
                self.set_widgets_metadata()
        except RuntimeError as error:
            status = run_sync(kernel.provisioner.poll)() if kernel.provisioner else None
            if "didn't respond" in str(error):
                why = f"the kernel did not start within {self.startup_timeout} s"
            elif isinstance(error, DeadKernelError) or status is not None:
                why = f"the kernel died: {how_ended(status)}"
            else:
                raise
            raise RunError(why, died=True) from None
        finally:
            for cell in self.nb.cells:
                if cell.get("outputs"):
                    cell.outputs = merged(cell.outputs)
        return self.nb

    def log_output_message(self, output: Any) -> None:
        """Hand on an output as it comes."""
        self._take(output)

    def _number(self, index: int) -> str:
        """Which of the notebook's own cells that is: papermill adds one."""
        tags = [cell.metadata.get("tags", []) for cell in self.nb.cells]
        added = [INJECTED in some for some in tags].index(True) if len(tags) > self._own else None
        own = index + (added is None or index < added)
        return f"{max(own, 1)}/{self._own}"

    def _start(self, cell: Any, cell_index: int) -> None:
        self._show(f"cell {self._number(cell_index)}")

    def _note(self, cell: Any, cell_index: int, execute_reply: Any) -> None:
        """Note an error, displayed or answered; IPython's ``exit()`` is none, but ends it well."""
        said = execute_reply["content"]
        if any(one.get("source") == "ask_exit" for one in said.get("payload") or []):
            cell.outputs.append(new_output("error", ename="SystemExit", evalue="0", traceback=[]))
            raise CellExecutionError("", "SystemExit", "0")
        answered = [said] if said["status"] == "error" else []
        for one in [*answered, *(o for o in cell.outputs if o["output_type"] == "error")][-1:]:
            name, value = one.get("ename", "error"), one.get("evalue", "")
            if (name, value) not in WELL:
                self._seen.reason = _reason(cell, name, value)
                self._seen.cell = self._number(cell_index)


class Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine with that client."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, start_timeout: int, log_output: bool, **options: Any
    ) -> Any:
        """Carry the notebook out."""
        for unused in ("input_path", "stdout_file", "stderr_file"):
            del options[unused]
        options |= {"kernel_name": kernel_name, "startup_timeout": start_timeout}
        return Client(nb_man, log_output=True, **options).execute()


papermill_engines.register(ENGINE, Engine)


def how_ended(status: int | None) -> str:
    """The exit status of a process in words.

    >>> how_ended(3), how_ended(-11)
    ('exit status 3', 'killed by SIGSEGV')
    """
    if status is None or status >= 0:
        return f"exit status {status or 0}"
    known = {number.value: number.name for number in signal.Signals}
    name = known.get(-status, f"signal {-status}")
    return f"killed by {name}" + " (out of memory?)" * (name == "SIGKILL")


def merged(outputs: list[Any]) -> list[Any]:
    """Outputs with one for each stream between two others, and of its lines what stays to see."""
    found: list[Any] = []
    texts: dict[int, list[str]] = {}
    streams: dict[str, int] = {}
    for output in outputs:
        if output["output_type"] != "stream":
            streams = {}
        elif output["name"] in streams:
            texts[streams[output["name"]]].append(output["text"])
            continue
        else:
            streams[output["name"]] = len(found)
            texts[len(found)] = [output["text"]]
        found.append(output)
    for place, parts in texts.items():
        found[place]["text"] = to_see("".join(parts))
    return found


def _reason(cell: Any, name: str, value: str) -> str:
    """What an error says, else the last line of its traceback, else that of the cell's stderr."""
    if value.strip():
        return f"{name}: {one_line(value)}"
    tracebacks = [o["traceback"] for o in cell.outputs if o["output_type"] == "error"]
    stderr = [o["text"] for o in cell.outputs if o.get("name") == "stderr"]
    texts = ["\n".join(tracebacks[-1]) if tracebacks else "", "".join(stderr)]
    lines = [line for text in texts for line in re.findall(r"\S.*", strip_color(text))[-1:]]
    last = lines[0].strip() if lines else ""
    return (last if last.startswith(name) else f"{name}: {last}").rstrip(": ")
