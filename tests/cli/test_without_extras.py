"""Where packages are missing: one line that says what to install, or no harm at all."""

import json
import os
import re
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from recording import LIGHT, put

from cliplab.extras import advice, require
from cliplab.lab.session import FOR_RUNS

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("run 01", "run 01 --dry-run", "list", "report", "report --preset quick", "export"),
    *("inspect notebooks/01_light.ipynb", "diff results results", "attest", "notebooks copy"),
    *("new own/study", "race train.py:train"),
)
# What the `lab` extra brings, directly or by way of something, and a command may import,
USED = "papermill yaml nbconvert latex2mathml scipy tqdm psutil numpy jinja2 nbformat nbclient"
USED += " jupyter_client IPython ipykernel"
# and what none does: notebooks do, and other extras bring it.
UNUSED = "jupyterlab seaborn gymnasium sklearn pooch arch music21 ipywidgets pandas"
UNUSED += " matplotlib pyarrow distributed dask_jobqueue"
BLOCK = """
import os, sys

class Blocked:
    names = set(os.environ.get("BLOCKED", "").split())

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""
EVERY = """
import json, os, sys, tempfile
import sitecustomize
from cliplab.cli.main import main
import numpy, yaml, psutil, tqdm, scipy.stats, jinja2

def told(command, modules):
    with tempfile.TemporaryFile("w+") as file:
        child = os.fork()
        if child == 0:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            gone = {*modules.split(), "cliplab"}  # of cliplab, what was imported before
            for name in [name for name in sys.modules if name.partition(".")[0] in gone]:
                del sys.modules[name]
            sitecustomize.Blocked.names = set(modules.split())
            try:
                from cliplab.cli.main import main
                status = main(command.split())
            except SystemExit as stop:
                status = stop.code
            except BaseException:
                import traceback
                traceback.print_exc()
                status = 99
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status or 0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        file.seek(0)
        return status, file.read()

print(json.dumps([(*case, *told(*case)) for case in json.load(sys.stdin)]))
"""


@pytest.fixture
def project(tmp_path, make_notebook, monkeypatch):
    """A notebook and a record of it, in the working directory."""
    rows = "record([dict(arm='a', seed=s, ok=True) for s in range(n_seeds)])"
    make_notebook(tmp_path / "notebooks" / "01_light.ipynb", f"{LIGHT}\n{rows}")
    put(tmp_path / "results", "01_light", {"first_seed": 0, "n_seeds": 2}, code="old")
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(*paths: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **more}


def is_advice(text: str) -> bool:
    line = r'cliplab: error: \w+ is not installed: pip install "cliplab\[lab\]"\n'
    return re.fullmatch(line, text) is not None


def torch_alone(folder: Path) -> Path:
    """A folder with links to torch, and to what it requires, and nothing else."""
    folder.mkdir()
    todo, done = ["torch"], set()
    while todo:
        name = todo.pop()
        if name in done:
            continue
        done.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in found.files or () if ".." not in file.parts}:
            if not (folder / top).exists():
                (folder / top).symlink_to(found.locate_file(top))
        for item in map(Requirement, requires(name) or ()):
            if item.marker is None or item.marker.evaluate({"extra": ""}):
                todo.append(item.name)
    return folder


@pytest.mark.slow
def test_with_torch_alone_every_command_says_what_to_install(project):
    env = environment(torch_alone(project / "site"), ROOT)

    def python(*words: str) -> tuple[int, str]:
        command = [sys.executable, "-S", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        return done.returncode, done.stderr if done.returncode else ""

    for command in (*COMMANDS, "fly"):
        status, err = python("-m", "cliplab.cli", *command.split())
        assert status == 2, command
        assert is_advice(err), (command, err)
    assert not (project / "copy").exists()
    (project / "h.csv").write_text("norm_before\n1\n")
    code = """
        from cliplab.cli.main import main
        assert main(["diagnose", "h.csv"]) == 0
        import cliplab
        history = cliplab.History.load("h.csv")
        for use in (history.to_frame, cliplab.find_threshold(lambda: 1.0).plot):
            try:
                use()
            except Exception as error:
                assert isinstance(error, ImportError) and "cliplab[lab]" in str(error), error
            else:
                raise AssertionError
    """
    assert python("-c", textwrap.dedent(code)) == (0, "")
    assert python("-m", "cliplab.cli", "--help")[0] == 0


@pytest.mark.slow
def test_with_one_package_missing_a_command_works_or_says_what_to_install(project):
    cases = [(command, module) for module in [*USED.split(), UNUSED] for command in COMMANDS]
    cases = [case for case in cases if case[0] != "run 01" or case[1] in FOR_RUNS]
    done = subprocess.run(
        [sys.executable, "-c", EVERY],
        input=json.dumps(cases),
        env=environment(project / "block", ROOT),
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    refused = set()
    for command, module, status, text in found:
        assert "Traceback" not in text, (command, module, text)
        if "is not installed" in text:
            refused.add((command, module))
            assert (status, is_advice(text)) == (2, True), (command, module, text)
            assert text.startswith(f"cliplab: error: {module} ")
    assert {module for command, module in refused if command == "run 01"} == set(FOR_RUNS)


@pytest.mark.slow
def test_what_a_run_does_not_need_may_be_missing(project):
    env = environment(project / "block", ROOT, BLOCKED=UNUSED)
    command = [sys.executable, "-m", "cliplab.cli", "run", "01"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, "1 to run" in done.stderr) == (0, True), done.stderr
    assert (project / "reports" / "index.html").exists()


def test_an_export_as_parquet_says_what_it_needs(project):
    env = environment(project / "block", ROOT, BLOCKED="pyarrow")
    command = [sys.executable, "-m", "cliplab.cli", "export", "-o", "table.parquet"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    line = 'cliplab: error: pyarrow is not installed: pip install "cliplab[parquet]"\n'
    assert (done.returncode, done.stderr) == (2, line)


def test_what_no_extra_brings_gets_no_advice():
    assert [advice(name) for name in ("cliplab.none", "torch", "json", "", None)] == [""] * 5
    assert "cliplab[cluster]" in advice("dask_jobqueue")
    require("json", "torch")
    with pytest.raises(ModuleNotFoundError, match=r"cliplab\[lab\]"):
        require("json", "no_such_module")
