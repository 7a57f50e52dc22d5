"""Kernels note which files they open to read, whoever started them, and notice nothing of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cliplab.lab.kernels.forkserver import PROVISIONER
from cliplab.lab.kernels.quick_imports import papermill
from cliplab.lab.kernels.watch import MOST
from cliplab.lab.kernels.watching import watching
from cliplab.lab.runs.keys import closure
from cliplab.lab.runs.reads import undeclared

WATCH = Path(__file__).parents[3] / "cliplab" / "lab" / "kernels" / "watch.py"
ARGV = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def noted(folder: Path, code: str) -> list[str]:
    """What a Python that runs some code in a folder has noted, relative to it."""
    opened = folder.parent / "opened"
    opened.unlink(missing_ok=True)
    run = f"runpy.run_path({str(WATCH)!r}, {{'OPENED': {str(opened)!r}}})"
    start = f"import os, runpy, sys\n{run}\n"
    done = subprocess.run([sys.executable, "-c", start + code], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    paths = opened.read_bytes().split(b"\0")
    assert paths.pop() == b""
    return [os.path.relpath(os.fsdecode(path), folder) for path in paths]


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "nb"
    for name in ("a.csv", "b.csv", "sub/c.csv", "site-packages/d.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "above.csv").write_text("above")
    (folder / "link.csv").symlink_to(tmp_path / "above.csv")
    (tmp_path / "back").symlink_to(folder)
    return folder


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open('a.csv'); open('a.csv'); open(os.path.abspath('a.csv'))", ["a.csv"]),
        ("open(b'a.csv'); open('b.csv', 'r+'); os.open('a.csv', 0)", ["a.csv", "b.csv"]),
        ("import pathlib; pathlib.Path('sub', 'c.csv').read_text()", ["sub/c.csv"]),
        ("os.chdir('sub'); open('c.csv'); open('../a.csv')", ["sub/c.csv", "a.csv"]),
        ("open('link.csv'); open('../back/a.csv')", ["link.csv", "a.csv"]),
        ("open('../above.csv'); open(os.__file__); open('site-packages/d.csv')", []),
        ("open('a.csv', 'w'); open('a.csv'); open('new', 'w'); open('new')", []),
        ("open('t', 'w').write('1'); os.replace('t', 'b.csv'); open('b.csv')", []),
        ("os.system('echo 1 > b.csv'); open('b.csv')", []),
        ("os.open('sub', 0); open(0, closefd=False)", []),
        ("if os.fork() == 0: open('a.csv'); os._exit(0)\nos.wait()", ["a.csv"]),
        ("import sqlite3; sqlite3.connect('a.csv'); sqlite3.connect('new.db')", ["a.csv"]),
    ],
)  # fmt: skip
def test_files_that_were_there_and_are_read_are_noted_once(code, expected, folder):
    assert noted(folder, code) == expected


def test_the_notebooks_code_goes_on_whatever_happens(folder):
    code = "open('a.csv')\ntry: open('no\\0thing')\nexcept ValueError: pass\nopen('b.csv')"
    assert noted(folder, code) == ["a.csv", "b.csv"]
    assert noted(folder, f"os.closerange(3, 99)\n{code}") == []


def test_it_looks_at_so_many_files_and_no_more(folder):
    many = "for i in range({}):\n    try: open(f'no{{i}}')\n    except OSError: pass\nopen('a.csv')"
    assert noted(folder, many.format(MOST - 1)) == ["a.csv"]
    assert noted(folder, many.format(MOST)) == []


def test_only_ipykernels_are_told(monkeypatch):
    assert watching(["R", "--slave", "-e", "IRkernel::main()"], Path("opened")) == []
    assert len(watching(ARGV, Path("opened"))) == 1
    monkeypatch.setenv("PYTHONSTARTUP", "start.py")
    assert watching(ARGV, Path("opened")) == []


CELLS = (
    "before = set(globals())\nimport sys\nearly = [n for n in sys.modules if 'cliplab' in n]",
    "import helper, json\nopen('declared.csv').read(), open('data.csv'), open(\"it's.csv\")\n"
    "open('made.csv', 'w').write('1')\nopen('made.csv').read()\n1 + 1",
    "print(json.dumps([sorted(before), early, sys.argv[0], Out, _, sys.path[0]]))",
)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")
def test_kernels_note_what_they_read_and_their_namespace_stays_clean(tmp_path, make_notebook):
    from jupyter_client.provisioning import KernelProvisionerFactory

    folder = tmp_path / "it's"
    path = make_notebook(folder / "a.ipynb", *CELLS)
    notebook = json.loads(path.read_text())
    notebook["metadata"]["cliplab"] = {"reads": ["declared.csv"]}
    path.write_text(json.dumps(notebook))
    for name in ("data.csv", "declared.csv", "it's.csv", "helper.py"):
        (folder / name).write_text("")
    factory = KernelProvisionerFactory.instance()
    usual, printed = factory.default_provisioner_name, []
    try:
        for provisioner in ("local-provisioner", PROVISIONER):
            factory.default_provisioner_name = provisioner
            for more in ([], watching(ARGV, folder / ".opened")):
                done = papermill().execute_notebook(
                    str(path),
                    None,
                    kernel_name="python3",
                    cwd=str(folder),
                    progress_bar=False,
                    extra_arguments=more,
                )
                printed.append(done.cells[-1].outputs[0]["text"].replace(str(folder), ""))
            assert undeclared(folder / ".opened", closure(path)) == ["data.csv", "it's.csv"]
            (folder / ".opened").unlink()
            (folder / "made.csv").unlink()
    finally:
        factory.default_provisioner_name = usual
    assert printed[0] == printed[1]
    assert printed[2] == printed[3]
    assert json.loads(printed[3])[1] == []
