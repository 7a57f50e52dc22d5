"""What of a kernel's Python is in the environment that numbers depend on."""

import json
import sys
from pathlib import Path

import pytest

from cliplab.lab.notebook.kernel import DEFAULT
from cliplab.lab.runs.interpreter import interpreter
from cliplab.lab.runs.keys import KIND, closure, environment, made_of
from cliplab.lab.runs.staleness import why_stale
from cliplab.lab.runs.versions import installed


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Install a kernel that starts with a program."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    def install(name: str, program: str) -> str:
        folder = tmp_path / "jupyter" / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": [program, "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
        spec |= {"display_name": name, "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))
        return name

    return install


def other_python(folder: Path, numpy: str) -> str:
    """Another environment's Python, as far as its files tell."""
    info = folder / "lib" / "python3.9" / "site-packages" / f"numpy-{numpy}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Name: numpy\nVersion: {numpy}\n")
    (info / "RECORD").write_text("numpy/__init__.py,,\n")
    return str(folder / "bin" / "python")


def test_a_kernel_of_this_interpreter_has_its_versions_and_a_name(kernel):
    here = interpreter(DEFAULT, ["numpy"])
    assert here["numpy"] == installed("numpy")
    for i, program in enumerate(("python", "python3", sys.executable)):
        name = kernel(f"mine{i}", program)
        assert interpreter(name, ["numpy"]) == {"kernel": name, **here}


def test_a_kernel_of_another_environment_has_the_versions_found_there(kernel, tmp_path):
    name = kernel("away", other_python(tmp_path / "env", "1.2"))
    found = {"kernel": name, "python": "3.9", "numpy": "1.2", "torch": None}
    assert interpreter(name, ["numpy", "torch", "json"]) == found


@pytest.mark.parametrize("program", ["R", "/opt/no/such/bin/python", "/opt/conda/bin/conda"])
def test_a_kernel_of_which_nothing_is_known_is_its_program(program, kernel):
    name = kernel("else", program)
    assert interpreter(name, ["numpy"]) == {"kernel": name, "program": program}


def test_a_kernel_that_is_not_there_is_refused_by_name(kernel):
    with pytest.raises(ValueError, match="no kernel 'nowhere' here, only "):
        interpreter("nowhere", [])


def test_the_kernel_is_part_of_the_environment_and_of_why_a_record_is_stale(
    kernel, tmp_path, make_notebook
):
    code = closure(make_notebook(tmp_path / "a.ipynb", "import numpy"))
    name = kernel("away", other_python(tmp_path / "env", "1.2"))
    assert environment(code, name) == {"device": "cpu", **interpreter(name, ["numpy"])}
    record = {"versions": {"python": "3.9.1", "numpy": "1.1"}}
    reasons = why_stale(code, {"key": KIND, **made_of(code)}, record, code.key, name)
    assert reasons == ["version numpy: 1.1, now 1.2"]
