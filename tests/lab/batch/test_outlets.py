"""Where output goes: copies of notebooks, files, stderr; what is refused before anything runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from commanding import status_of
from waiting import LONG

TALK = """
import os, sys, time
print(f"lr is {lr}")
for i in range(30):
    print(i, end=" ", flush=True)
    print(f"warned {i}", file=sys.stderr, flush=True)
if lr == 3:
    raise ValueError("too large")
if lr == 4:
    time.sleep(600)
from cliplab.lab import record
record(lr=lr)
os.getcwd()
"""


@pytest.fixture
def project(tmp_path, make_notebook, monkeypatch) -> Path:
    make_notebook(tmp_path / "notebooks" / "01.ipynb", TALK, parameters="lr: int = 0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells_of(path: Path) -> list:
    document = nbformat.read(path, 4)
    assert "papermill" in document.metadata
    return document.cells


@pytest.mark.slow
def test_output_goes_where_it_is_wanted(project, capsys):
    (project / "there").mkdir()
    (project / "said-1.txt").write_text("before\n")
    (project / "out").mkdir()
    (project / "out" / "3.ipynb").write_text(
        nbformat.writes(nbformat.v4.new_notebook(metadata={"papermill": {}}))
    )
    options = (
        "run --grid lr=1,2,3 --jobs 2 --budget none --no-report --log-output --report-mode "
        "--cwd there -o out/{lr}.ipynb --stdout-file said-{lr}.txt "
        "--stderr-file logs/{notebook}.txt --autosave-cell-every 0 --kernel stock"
    )
    done = subprocess.run(
        [sys.executable, "-m", "cliplab.cli", *options.split()],
        capture_output=True,
        text=True,
        timeout=LONG,
        env=os.environ | {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "1"},
    )
    said = done.stderr.splitlines()
    assert done.returncode == 1
    assert said.count("not used, as every run has one thread: OMP_NUM_THREADS") == 1
    assert not (project / "reports").exists()
    counted = " ".join(map(str, range(30)))
    for lr in (1, 2):
        assert f"01 lr={lr}: lr is {lr}" in said
        assert f"01 lr={lr}: {counted}" in said
        assert f"01 lr={lr}: warned 29" in said
        assert f"01 lr={lr}: '{project / 'there'}'" in said
        cells = cells_of(project / "out" / f"{lr}.ipynb")
        assert all(c.metadata.jupyter.source_hidden for c in cells if c.cell_type == "code")
        assert [o.get("name") for o in cells[-1].outputs] == ["stdout", "stderr", None, None]
    heads = [(project / f"said-{lr}.txt").read_text().splitlines()[:2] for lr in (1, 2)]
    assert heads == [["before", "lr is 1"], ["lr is 2", f"{counted} "]]
    logged = (project / "logs" / "01.txt").read_text()
    assert logged.count("warned 7\n") == 3
    failed = cells_of(project / "out" / "3.ipynb")
    assert "too large" in str(failed[-1].outputs)

    capsys.readouterr()
    again = "run --grid lr=1,2 --budget none --no-report --cwd there -o again/{preset}/{key}.ipynb"
    assert status_of(again) == 0  # a copy also of what was done already
    assert "2 done, 0 to run" in capsys.readouterr().err
    copies = sorted((project / "again" / "quick").iterdir())
    assert [path.stem for path in copies] == sorted(
        p.parent.name for p in project.rglob("record.json")
    )
    assert "reported" not in capsys.readouterr().out
    assert status_of("report") == 0  # of these runs
    assert len(list((project / "reports" / "pages").iterdir())) == 2


@pytest.mark.slow
def test_a_cell_over_its_time_fails_and_nothing_starts_after_it(project, capsys):
    command = (
        "run --kernel stock --grid lr=4,1,2 --execution-timeout 1 --stop-on-failure -o {lr}.ipynb"
    )
    assert status_of(command) == 1
    err = capsys.readouterr().err
    assert "A cell timed out while it was being executed, after 1 seconds." in err
    assert err.splitlines()[-1] == (
        "stopped at a failure: 2 of 3 runs did not start; the same command does the rest"
    )
    assert [path.name for path in project.glob("*.ipynb")] == ["4.ipynb"]


def test_prepared_notebooks_hold_their_parameters_and_nothing_runs(project, capsys):
    assert status_of("run --grid lr=1,2 --prepare-only -o out/{lr}.ipynb --report-mode") == 0
    assert capsys.readouterr().out.splitlines() == [
        str(project / "out" / f"{lr}.ipynb") for lr in (1, 2)
    ]
    cells = cells_of(project / "out" / "2.ipynb")
    assert "lr = 2" in cells[2].source
    assert all(c.metadata.jupyter.source_hidden for c in cells if c.cell_type == "code")
    assert status_of("run -p lr 7 --prepare-only") == 0
    (path,) = (Path(line) for line in capsys.readouterr().out.splitlines())
    assert path.name == "prepared.ipynb"
    assert "lr = 7" in cells_of(path)[2].source
    assert not list(project.rglob("record.json"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--grid lr=1,2 -o out.ipynb", "is that of two runs: 01 lr=1 and 01 lr=2"),
        ("--grid lr=1,2 -o {preset}.ipynb", "is that of two runs"),
        ("-o {rate}.ipynb", "expected a path that may hold {notebook}, {preset}, {key}, {lr}"),
        ("-o {}.ipynb", "expected a path that may hold"),
        ("-o {lr", "expected a path that may hold"),
        ("-o mine.ipynb", "mine.ipynb is there and is no output of cliplab or papermill"),
        ("-o mine.txt", "mine.txt is there and is no output of cliplab or papermill"),
        ("-o dangling", "dangling is there and is no output of cliplab or papermill"),
        ("-o notebooks/{notebook}.ipynb", "01.ipynb is a notebook to run"),
        ("-o notebooks", "notebooks is a folder"),
        ("--stdout-file notebooks/01.ipynb", "01.ipynb is a notebook to run"),
        ("--stderr-file link.ipynb", "link.ipynb is a notebook to run"),
        ("--stdout-file results/last_run.json", "is in a folder that cliplab keeps"),
        ("-o results/{notebook}/{preset}/{key}/x.ipynb", "is in a folder that cliplab keeps"),
        ("-o others/running.ipynb", "is in a folder that cliplab keeps"),
        ("-k=", "expected the name of a kernel"),
        ("--stdout-file notebooks", "--stdout-file"),
        ("--stderr-file {x}", "--stderr-file {x}: expected"),
        ("--stdout-file mine.txt/x", "cannot write"),
        ("--cwd nowhere", "'nowhere' is no folder"),
        ("--retries -1", "--retries"),
        ("--budget never", "'never' is not a positive number of minutes, or none"),
        ("--execution-timeout 0", "is not a positive number of seconds"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(options, complaint, project, capsys):
    (project / "mine.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook()))
    (project / "mine.txt").write_text("mine")
    (project / "dangling").symlink_to("nowhere")
    (project / "link.ipynb").symlink_to("notebooks/01.ipynb")
    (project / "others").mkdir()
    (project / "others" / ".lock").touch()  # of a run
    notebook = project / "notebooks" / "01.ipynb"
    document = json.loads(notebook.read_text())
    document["metadata"]["papermill"] = {}  # run before, in place
    notebook.write_text(json.dumps(document))
    before = sorted(p for p in project.rglob("*") if p.name != "results")
    assert status_of(f"run {options}") == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert "Traceback" not in err
    assert sorted(p for p in project.rglob("*") if p.name != "results") == before


def test_an_output_that_cannot_be_written_is_named_and_the_run_is_kept(project, capsys):
    (project / "file").write_text("in the way")
    command = "run --kernel stock -o file/{lr}.ipynb"
    for done in ("0 done, 1 to run", "1 done, 0 to run"):
        assert status_of(command) == 1
        err = capsys.readouterr().err
        assert done in err
        assert "cannot write" in err
        assert "Not a directory" in err or "File exists" in err
    assert len(list(project.rglob("record.json"))) == 1


def test_what_papermill_has_and_this_has_not_is_said_where_one_looks(capsys):
    assert status_of("run --help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ("s3://", "--engine", "--language", "stdin and stdout"):
        assert name in text
