import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from commanding import status_of
from recording import LIGHT
from waiting import LONG, is_gone, wait_until

from cliplab.lab.runs.keys import code_key

# Waits, or until it may go on.
SLOW = f"""{LIGHT}
import os, time
until = time.monotonic() + wait
while time.monotonic() < until and not os.path.exists("go"):
    time.sleep(0.05)
seeds = range(first_seed, first_seed + n_seeds)
record([{{"arm": f"wait={{wait}}", "seed": seed, "ok": True}} for seed in seeds])
"""


@pytest.fixture
def project(tmp_path, make_notebook, monkeypatch) -> Path:
    """Two notebooks and presets, in the current directory."""
    parameters = "wait: float = 0.1  # pause (s) [>= 0]\nsizes: list[int] = [1]\nname: str = 'x'"
    make_notebook(tmp_path / "notebooks" / "01_slow.ipynb", SLOW, parameters=parameters)
    make_notebook(tmp_path / "notebooks" / "02_fail.ipynb", "1 / 0", title="# Why?\n# not me")
    (tmp_path / "notebooks" / "presets.toml").write_text("[01_slow.smoke]\nwait = 0\n")
    (tmp_path / "values.yaml").write_text("wait: '1e-3'\n")
    (tmp_path / "waits.toml").write_text("wait = [1, 2]\n")
    (tmp_path / "loss.csv").write_text("loss\n1\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "nan.toml").write_text("wait = nan\n")
    (tmp_path / "broken.toml").write_text("wait = [\n\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_data_that_cannot_be_fetched_is_one_line_and_nothing_starts(tmp_path, monkeypatch, capsys):
    root = Path(__file__).parents[2]
    unreachable = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "CLIPLAB_DATA": str(tmp_path / "c")}
    for name, value in unreachable.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    notebooks = root / "notebooks"
    assert status_of(f"run 03 --preset smoke -p corpus=wikipedia --notebooks {notebooks}") == 2
    err = capsys.readouterr().err
    *_, line = err.splitlines()
    assert "exllamav2==0.3.2" in line
    assert "pip could not fetch it" in line
    assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("run 01 --jobs 0", "--jobs: '0' is not a whole number"),
        ("run 01 --jobs two", "'two' is not a whole number"),
        ("run 01 --budget 0", "'0' is not a positive number"),
        ("run 01 --budget nan", "'nan' is not a positive number"),
        ("run 01 --executor cloud", "executor 'cloud': expected local, dask, "),
        ("run 01 --verbose", "unrecognized arguments: --verbose"),
        ("fly", "invalid choice: 'fly'"),
        ("", "COMMAND"),
        ("run 03", "'03' matches no notebook: 01_slow, 02_fail"),
        ("run 0", "'0' matches 2 notebooks"),
        ("run none.ipynb", "no notebook none.ipynb"),
        ("run 01 --notebooks nowhere", "matches no notebook"),
        ("run 01 --preset fast", "error: 01_slow has no preset 'fast', only quick, smoke"),
        ("run 01 -p lr=1", "unknown parameter 'lr'; declared: wait, sizes"),
        ("run -p wait=1", "02_fail: unknown parameter 'wait'"),
        ("run 01 -p wait=abc", "'abc' is not of type float"),
        ("run 01 -p wait abc", "'abc' is not of type float"),
        ("run 01 -p n_seeds=1.5", "'1.5' is not of type int"),
        ("run 01 -p n_seeds=0", "0 violates its bound [>= 1]"),
        ("run 01 -p wait nan", "nan is not a finite number"),
        ("run 01 -p wait -1", "-1.0 violates its bound [>= 0]"),
        ("run 01 -p sizes=[]", "[] is not a non-empty list[int]"),
        ("run 01 -p wait", "expected NAME=VALUE"),
        ("run 01 -p wait --jobs 2", "expected NAME=VALUE"),
        ("run 01 -p wait=1 -p wait=2", "wait is given twice"),
        ("run 01 -p wait=1 --grid wait=1,2", "wait is given twice"),
        ("run 01 -p first_seed=1 --seeds 0-3", "first_seed is given twice"),
        ("run 01 --grid wait=1,,2", "expected values separated by commas"),
        ("run 01 --grid wait=1,1.0", "expected distinct values"),
        ("run 01 --grid wait=1,x", "'x' is not of type float"),
        ("run 01 --seeds 5-2", "'5-2' is not like 0-31"),
        ("run 01 --split-seeds 0", "'0' is not a whole number"),
        ("run 01 --shard 3/2", "'3/2' is not like 1/4"),
        ("run 01 --shard 0/2", "'0/2' is not like 1/4"),
        ("run 01 --memory 0", "'0' is not a positive number of GB"),
        ("run 01 --kernel warm", "invalid choice: 'warm'"),
        ("run 01 --filter wait=3", "--filter wait=3: none of the 1 runs is like that"),
        ("run 01 --filter wat=3", "unknown parameter 'wat' in every notebook"),
        ("run 01 --filter wait=x", "'x' is not of type float"),
        ("run 01 --filter wait", "expected NAME=VALUE"),
        ("run 01 --grid nan.toml", "wait = nan is not a list of values"),
        ("run 01 --grid none.toml", "cannot read none.toml"),
        ("run 01 --grid waits.toml --grid wait=1", "wait is given twice"),
        ("run 01 --grid waits.toml -p wait=1", "wait is given twice"),
        ("run 01 --executor dask:none.yaml", "none.yaml"),
        ("run 01 --results values.yaml", "--results values.yaml is not a folder"),
        ("list 9", "'9' matches no notebook"),
        ("run 01 -f values.yaml", "write 0.001 without quotes"),
        ("run 01 -f list.yaml", "expected parameters as NAME: VALUE"),
        ("run 01 -f nan.toml", "nan is not a finite number"),
        ("run 01 -f broken.toml", "cannot read broken.toml"),
        ("run 01 -f none.toml", "cannot read none.toml"),
        ("run 01 -f presets.ini", "expected a .yaml, .yml, .json or .toml file"),
        ("diagnose none.pt", "cannot read none.pt: No such file"),
        ("diagnose notebooks", "notebooks: a folder without trainer_state.json or event files"),
        ("diagnose values.yaml", "values.yaml: no column of gradient norms, name it with --norm"),
        ("diagnose loss.csv", "loss.csv: no column of gradient norms, name it with --norm"),
        ("diagnose loss.csv --norm x", "loss.csv: --norm x: no such column; columns of numbers: "),
        ("diagnose loss.csv --threshold 0", "'0' is not a positive number"),
        ("diagnose loss.csv --for 3", "--every and --for go with --watch"),
        ("diagnose - --watch", "name it, not standard input"),
        ("diagnose none.jsonl --watch", "cannot read none.jsonl: No such file"),
        ("diagnose loss.csv --lr 0", "'0' is not a positive number"),
        ("diagnose", "required: FILE"),
        ("report", "`cliplab run` first"),
        ("report --preset quick", "no results: "),
    ],
)
def test_bad_input_is_one_line_status_2_and_starts_nothing(command, complaint, project, capsys):
    before = sorted(project.rglob("*"))
    assert status_of(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cliplab: error: ")
    assert err.count("\n") == 1
    assert complaint in err
    assert sorted(project.rglob("*")) == before


def test_list_shows_notebooks_parameters_and_records(project, capsys):
    assert status_of("list") == 0
    brief = capsys.readouterr().out
    assert "01_slow: A question?" in brief
    assert "wait" not in brief
    assert status_of("list 01") == 0
    text = capsys.readouterr().out
    assert text.startswith("01_slow: A question?\n")
    assert "smoke: not run here\n" in text
    assert "wait: float = 0.1  pause (s) [>= 0]" in text
    bad = project / "results" / "01_slow" / "smoke" / "0" / "record.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("{")
    assert status_of("list --json") == 1
    one, two = json.loads(capsys.readouterr().out)
    assert (one["notebook"], one["presets"]) == ("01_slow", ["quick", "smoke"])
    states = {"current": 0, "stale": 0, "corrupt": 1, "failed": 0, "wall_s": 0.0}
    (damaged,) = one["records"]["smoke"].pop("runs")
    assert (damaged["run"], damaged["state"]) == ("0", "corrupt")
    assert one["records"]["smoke"] == states
    assert one["code_key"] == code_key(project / "notebooks" / "01_slow.ipynb")
    assert one["values"]["smoke"] == {"wait": 0}
    assert two["question"] == "Why?"
    assert two["parameters"][0]["name"] == "first_seed"
    assert status_of("list --json --preset smoke") == 1
    assert [entry["notebook"] for entry in json.loads(capsys.readouterr().out)] == ["01_slow"]


def test_list_says_why_a_record_is_stale(project, make_notebook, capsys):
    assert status_of("run 01 --preset smoke --kernel stock") == 0
    capsys.readouterr()
    assert status_of("list --preset smoke") == 0
    assert "smoke: 1 current" in capsys.readouterr().out
    path = project / "notebooks" / "01_slow.ipynb"
    path.write_text(path.read_text().replace("True", "False"))
    (project / "notebooks" / "presets.toml").write_text("[01_slow.smoke]\nwait = 0.5\n")
    assert status_of("list --preset smoke") == 0
    text = capsys.readouterr().out
    assert "smoke: 1 stale" in text
    assert "stale: cell 1\n    stale: parameter wait: 0.0, the preset has 0.5\n" in text
    assert status_of("list --json --preset smoke") == 0
    ((entry),) = json.loads(capsys.readouterr().out)
    (run,) = entry["records"]["smoke"]["runs"]
    assert (run["state"], run["why"][0]) == ("stale", "cell 1")


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("attest 01", "no published record in records: 01_slow"),
        ("attest --accept a", "argument --accept: expected 2 arguments"),
        ("attest --accept a why --records none", "--accept a: nothing is called that"),
    ],
)
def test_attest_refuses_what_is_not_there(command, error, project, capsys, monkeypatch):
    monkeypatch.setattr("cliplab.lab.attest.attest.uncommitted", lambda root: "")
    assert status_of(command) == 2
    assert error in capsys.readouterr().err


def start(command: str) -> subprocess.Popen[str]:
    def listen_to_ctrl_c() -> None:  # also where the tests run in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, "-m", "cliplab.cli", *command.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen_to_ctrl_c,
    )


def cells_running(results: Path) -> list[str]:
    return [path.read_text() for path in results.rglob("progress")]


@pytest.mark.slow
def test_kill_9_leaves_no_process_and_loses_only_what_was_in_flight(project, capsys):
    command = "run 01 --grid wait=0,3600,3601,3602 --jobs 2"
    batch = start(command)
    wait_until(lambda: list(project.rglob("record.json")))
    (done,) = project.rglob("record.json")
    before = done.read_bytes(), done.stat().st_mtime_ns
    wait_until(lambda: "cell 3/3" in cells_running(project))
    family = psutil.Process(batch.pid).children(recursive=True)
    assert len(family) >= 4  # two workers and their kernels
    os.kill(batch.pid, signal.SIGKILL)
    batch.communicate(timeout=LONG)  # nobody else holds its output
    wait_until(lambda: all(map(is_gone, family)))
    assert list(project.rglob("record.json")) == [done]

    (project / "notebooks" / "go").touch()
    assert status_of(command) == 0
    out, err = capsys.readouterr()
    assert "1 done, 3 to run" in err
    assert err.count("\nstart ") == err.count("\ndone ") == 3
    assert (done.read_bytes(), done.stat().st_mtime_ns) == before
    files = {path.name for path in (project / "results" / "01_slow").rglob("*") if path.is_file()}
    assert files == {".lock", "record.json", "notebook.ipynb"}
    check_report(project, out)


def check_report(project: Path, out: str) -> None:
    """What a batch ends with, and `cliplab report` repeats."""
    assert f"report: {Path('reports') / 'index.html'}" in out
    assert json.loads((project / "reports" / "claims.json").read_text()) == []
    assert len(json.loads((project / "results" / "last_run.json").read_text())) == 4
    for path in (project / "reports").rglob("*.*"):
        path.unlink()
    assert status_of("report") == status_of("report --preset quick") == 0
    assert (project / "reports" / "index.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_stopped_batch_ends_at_once_and_says_how_to_go_on(number, status, project):
    batch = start("run 01 -p wait 3600")
    wait_until(lambda: "cell 3/3" in cells_running(project))
    family = psutil.Process(batch.pid).children(recursive=True)
    batch.send_signal(number)
    time.sleep(0.05)
    batch.send_signal(signal.SIGINT)  # impatience is not punished
    _, err = batch.communicate(timeout=LONG)
    assert batch.returncode == status
    assert err.splitlines()[-1] == "stopped: 0 of 1 runs are done; the same command does the rest"
    assert "Traceback" not in err
    wait_until(lambda: all(map(is_gone, family)))


def test_a_failure_is_named_and_sets_the_status_and_damage_is_set_aside(project, capsys):
    assert status_of("run --preset quick --jobs 2 --kernel stock") == 1
    err = capsys.readouterr().err
    assert "all notebooks, preset quick (Ctrl-C keeps what is done): 0 done, 2 to run" in err
    head, last = err.splitlines()[-2:]
    assert head.split() == ["failed", "run", "cell", "error", "details"]
    *found, details = last.split(maxsplit=2)[:2], last.split()[-1]
    assert found == [["02_fail", "3/3"]]
    assert "ZeroDivisionError: division by zero" in last
    assert Path(details).read_text().startswith("02_fail\n")

    (record,) = project.rglob("record.json")
    record.write_text(record.read_text()[:-20])
    damaged = record.read_text()
    assert status_of("report --preset quick") == 2
    assert f"corrupt record {record.relative_to(project)}: " in capsys.readouterr().err
    assert status_of("run 01 --kernel stock") == 0
    err = capsys.readouterr().err
    assert err.startswith(f"corrupt record {record}: ")
    assert err.splitlines()[0].endswith(": set aside, and run again")
    assert record.with_name("record.json.damaged").read_text() == damaged
    assert status_of("report --preset quick") == 0


def test_overlapping_seeds_are_kept_but_not_judged(project, capsys):
    (project / "notebooks" / "claims.toml").write_text(LEDGER)
    assert status_of("run 01 --preset smoke --kernel stock --seeds 0-1") == 0
    assert status_of("run 01 --preset smoke --kernel stock --seeds 1-2") == 0
    assert status_of("report --preset smoke") == 1
    err = capsys.readouterr().err
    assert "cannot judge: 01_slow: seed 1 was run twice with the same settings, in " in err
    assert err.endswith("; delete one of them\n")


LEDGER = """
[C1]
kind = "identity"
statement = "it waits"
notebook = "01_slow"
metric = "ok"
arms = ["wait=0.0"]
source = "-"
"""


def test_other_settings_get_a_report_and_no_verdict(project, capsys):
    (project / "notebooks" / "claims.toml").write_text(LEDGER)
    (project / "notebooks" / "presets.toml").write_text("[01_slow.one]\nwait = 0\n")
    for command, verdict in [
        ("run 01 --kernel stock --preset one", "holds"),
        ("run 01 --kernel stock --preset one -p name=b", "no verdict (name changed)"),
        ("run 01 --kernel stock --preset one --grid name=c,d", "no verdict (name changed)"),
        ("report --preset one", "holds"),
    ]:
        assert status_of(command) == 0, capsys.readouterr().err
        [found] = json.loads((project / "reports" / "claims.json").read_text())
        assert found["verdict"] == verdict, command
        assert (project / "reports" / "index.html").exists()


def test_a_batch_that_only_failed_keeps_the_last_report(project, capsys):
    assert status_of("run 01 --preset smoke --kernel stock") == 0
    before = (project / "reports" / "claims.json").stat().st_mtime_ns
    assert status_of("run 02 --kernel stock") == 1
    assert (project / "reports" / "claims.json").stat().st_mtime_ns == before
    assert json.loads((project / "results" / "last_run.json").read_text())
