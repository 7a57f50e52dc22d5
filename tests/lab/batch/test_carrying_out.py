"""Notebooks carried out as papermill would, and what is said where one fails."""

import json
import sys
from pathlib import Path

import nbformat
import pytest

from cliplab.lab.batch.batch import run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import How
from cliplab.lab.executors.local import LocalExecutor

pytestmark = pytest.mark.slow

SAY = """
from IPython.display import display
def say(**values):
    display({"application/papermill.record+json": values}, raw=True)
"""
WRITE = """
open("helper.py", "w").write("VALUE = 1")
import helper
"""
CHANGE = """
text = open("changes.ipynb").read()
open("changes.ipynb", "w").write(text.replace("text = ", "words = "))
"""
ENDS = {
    "magic": ["%notamagic foo"],
    "cell_magic": ["%%nosuchmagic\nfoo"],
    "bash": ["%%bash\nexit 3"],
    "text": ["import sys; sys.exit('no data')", "1 / 0"],
    "status": ["import sys; sys.exit(1)"],
    "shown": ["get_ipython().showtraceback((ValueError, ValueError('odd'), None))", "1"],
    "allowed": ["1 / 0", "say(x=1)", "2"],
    "both": ["1 / 0", "%notamagic foo", "2"],
    "gone": ["import os; os.kill(os.getpid(), 9)"],
    "zero": ["say(x=1)", "import sys; sys.exit(0)", "1 / 0"],
    "exit": ["say(x=1)", "exit()", "1 / 0"],
    "last": ["say(x=1)\nexit()"],
    "changes": [CHANGE],
    "writes": [WRITE],
}
CELLS = {
    "magic": ("3/3", "UsageError: Line magic function `%notamagic` not found."),
    "cell_magic": ("3/3", "UsageError: Cell magic `%%nosuchmagic` not found."),
    "bash": ("3/3", "CalledProcessError: Command 'b'exit 3\\n'' returned non-zero exit status 3."),
    "text": ("3/4", "SystemExit: no data"),
    "status": ("3/3", "SystemExit: 1"),
    "shown": ("3/4", "ValueError: odd"),
    "allowed": ("3/5", "ZeroDivisionError: division by zero"),
    "both": ("4/5", "UsageError: Line magic function `%notamagic` not found."),
    "gone": ("3/3", "the kernel died: killed by SIGKILL (out of memory?)"),
    "changes": ("3/3", "changed while it ran: the notebook"),
    "writes": ("3/3", "changed while it ran: helper"),
}


class Retries(Silent):
    def __init__(self) -> None:
        self.retries: list[str] = []

    def retried(self, spec, error) -> None:
        self.retries.append(spec.name)


def write(path: Path, *cells: str, allowed: int | None = None) -> Path:
    """A notebook without any metadata: a parameter, `say`, then these cells."""
    code = [nbformat.v4.new_code_cell(cell) for cell in (SAY, *cells)]
    if allowed is not None:
        code[allowed].metadata["tags"] = ["raises-exception"]
    source = "first_seed: int = 0\nn_seeds: int = 1"
    tagged = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[tagged, *code])))
    return path


def test_how_a_notebook_ends_is_said_and_only_a_death_is_tried_again(tmp_path):
    notebooks = [
        write(
            tmp_path / "nb" / f"{name}.ipynb",
            *cells,
            allowed=1 if name in ("allowed", "both") else None,
        )
        for name, cells in ENDS.items()
    ]
    (tmp_path / "link").symlink_to(tmp_path / "nb")
    notebooks.append(tmp_path / "link" / "last.ipynb")
    specs = [s for n in notebooks for s in plan([n], "quick", tmp_path / n.parent.name)]
    retries = Retries()
    with LocalExecutor(2) as executor:
        result = run_batch(specs, executor, retries)
    assert {f.spec.name: (f.cell, f.error) for f in result.failures} == CELLS
    assert retries.retries == ["gone"]
    assert [record.notebook for record in result.records] == ["zero", "exit", "last", "last"]
    for record in result.records:
        assert record.values == {"x": 1}
        told = record.provenance
        assert told["kernel"] == ("forked" if sys.platform == "linux" else "stock")
        assert {"versions", "hardware", "started", "finished", "wall_s", "cpu_s"} <= told.keys()
        assert (told["kernel_name"], told["seeds"]) == ("python3", [0, 1])
        executed = json.loads((record.directory / "notebook.ipynb").read_text())
        assert executed["metadata"]["language_info"]["name"] == "python"
        counts = [c["execution_count"] for c in executed["cells"][-1:]]
        assert counts == [None] or record.notebook == "last"


# Its language is one that papermill can write parameters in.
ECHO = """
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

class Echo(Kernel):
    implementation, implementation_version, banner = "echo", "1", "echo"
    language_info = {"name": "bash", "mimetype": "text/plain", "file_extension": ".txt"}

    def do_execute(self, code, *_, **__):
        self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": code})
        if "fail" in code:
            return {"status": "error", "ename": "Sour", "evalue": "no\\nway", "traceback": []}
        bundle = {"application/papermill.record+json": {"said": code}}
        content = {"data": bundle, "metadata": {}}
        self.send_response(self.iopub_socket, "display_data", content)
        return {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}

IPKernelApp.launch_instance(kernel_class=Echo)
"""


def add_kernel(folder: Path, name: str, *argv: str, language: str = "python") -> None:
    spec = {"argv": argv, "display_name": name, "language": language}
    (folder / "kernels" / name).mkdir(parents=True)
    (folder / "kernels" / name / "kernel.json").write_text(json.dumps(spec))


def test_any_kernel_runs_and_one_that_does_not_start_is_said(tmp_path, monkeypatch):
    jupyter, python = tmp_path / "jupyter", [sys.executable, "-X", "utf8"]
    (tmp_path / "echo.py").write_text(ECHO)
    launch = [*python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    add_kernel(jupyter, "mine", *launch)
    add_kernel(
        jupyter,
        "echo",
        *python,
        str(tmp_path / "echo.py"),
        "-f",
        "{connection_file}",
        language="bash",
    )
    add_kernel(jupyter, "deaf", "sleep", "600")
    add_kernel(jupyter, "ends", *python, "-c", "raise SystemExit(4)")
    monkeypatch.setenv("JUPYTER_PATH", str(jupyter))
    plain = write(tmp_path / "nb" / "plain.ipynb", "import sys\nsay(utf8=sys.flags.utf8_mode)")
    words = write(tmp_path / "nb" / "words.ipynb", "first", "second")
    fails = write(tmp_path / "nb" / "fails.ipynb", "fail", "second")
    document = nbformat.read(plain, 4)
    document.metadata["kernelspec"] = {"name": "mine", "display_name": "x", "language": "R"}
    named = write(tmp_path / "nb" / "named.ipynb")
    nbformat.write(document, named)

    specs = []
    for notebook, name in [
        (named, None),
        (plain, "mine"),
        (words, "echo"),
        (fails, "echo"),
        (words, "deaf"),
        (words, "ends"),
    ]:
        how = How(kernel_name=name, retries=0, start_timeout_s=1.0 if name == "deaf" else 60.0)
        params = {"n_seeds": 2} if name == "echo" else {}
        specs += plan([notebook], "quick", tmp_path / str(name), params=params, how=how)
    with pytest.raises(
        ValueError, match="no kernel 'none' here, only deaf, echo, ends, mine, pyth"
    ):
        plan([words], "quick", tmp_path, how=How(kernel_name="none"))
    with LocalExecutor(2) as executor:
        result = run_batch(specs, executor)
    told = [(r.provenance["kernel_name"], r.provenance["kernel"]) for r in result.records]
    assert told == [("mine", "stock"), ("mine", "stock"), ("echo", "stock")]
    assert [r.values for r in result.records] == [{"utf8": 1}, {"utf8": 1}, {"said": "second"}]
    echoed = nbformat.read(result.records[-1].directory / "notebook.ipynb", 4)
    assert echoed.cells[1].source.splitlines() == ["# Parameters", "n_seeds=2"]
    assert echoed.metadata.language_info.name == "bash"
    errors = [(f.cell, f.error.partition(";")[0]) for f in result.failures]
    assert errors == [
        ("3/4", "Sour: no way"),
        ("", "the kernel did not start within 1 s"),
        ("", "the kernel died: exit status 4"),
    ]
