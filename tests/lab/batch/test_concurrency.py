"""Two batches on one results folder: neither collides with the other, nothing runs twice."""

import subprocess
import sys
from pathlib import Path

import pytest
from recording import LIGHT
from waiting import LONG

from cliplab.cli.main import main
from cliplab.lab.runs.record import RunRecord

# Every completed run leaves a line.
COUNT = f"""{LIGHT}
import os, time
time.sleep(0.2)
log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(log, f"{{x}}\\n".encode())
record([{{"arm": f"x={{x}}", "seed": 0}}])
"""


pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, make_notebook, monkeypatch) -> Path:
    make_notebook(tmp_path / "notebooks" / "01.ipynb", COUNT, parameters="x: int = 0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_batches_share_the_work(project):
    grid = ",".join(map(str, range(12)))
    command = [sys.executable, "-m", "cliplab.cli", "run", "--grid", f"x={grid}"]
    batches = [
        subprocess.Popen(
            [*command, "--reports", f"reports{i}"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    ends = [batch.communicate(timeout=LONG)[1] for batch in batches]
    assert [batch.returncode for batch in batches] == [0, 0], ends
    ran = sorted(map(int, (project / "notebooks" / "log").read_text().split()))
    assert ran == list(range(12))
    assert len(list(project.rglob("record.json"))) == 12
    names = {path.name for path in (project / "results" / "01").rglob("*") if path.is_file()}
    assert names == {".lock", "record.json", "notebook.ipynb"}
    for i in range(2):
        assert len(list((project / f"reports{i}" / "pages").iterdir())) == 12


def test_force_runs_again_what_is_done(project):
    run = ["run", "--kernel", "stock", "--grid", "x=1,2"]
    assert main(run) == 0
    assert main(run) == 0
    log = project / "notebooks" / "log"
    assert sorted(log.read_text().split()) == ["1", "2"]
    before = {path: RunRecord.load(path) for path in project.rglob("record.json")}
    assert main([*run, "--force", "--filter", "x=2"]) == 0
    assert sorted(log.read_text().split()) == ["1", "2", "2"]
    after = {path: RunRecord.load(path) for path in project.rglob("record.json")}
    newer = [p for p in after if after[p].provenance["started"] > before[p].provenance["started"]]
    assert [after[path].params["x"] for path in newer] == [2]


def test_a_shard_runs_its_part_and_the_report_of_all_comes_last(project, capsys):
    for part in ("1/2", "2/2"):
        command = ["run", "--kernel", "stock", "--grid", "x=1,2,3", "--shard", part]
        assert main(command) == 0
        assert "when all are: `cliplab report --preset quick`" in capsys.readouterr().err
        assert not (project / "reports").exists()
    assert main(["report", "--preset", "quick"]) == 0
    assert len(list((project / "reports" / "pages").iterdir())) == 3


def test_a_dry_run_lists_and_touches_nothing(project, capsys):
    assert main(["run", "--kernel", "stock", "--grid", "x=1,2", "--filter", "x=1"]) == 0
    before = sorted(project.rglob("*"))
    capsys.readouterr()
    assert main(["run", "--grid", "x=1,2", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    head, one, two = (line.split() for line in out.splitlines())
    assert head == ["state", "key", "run"]
    assert (one[0], one[2:]) == ("done", ["01", "x=1"])
    assert (two[:2], two[3:]) == (["to", "run"], ["01", "x=2"])
    assert list(project.rglob(one[1]))
    assert err == "1 done, 2 in all\n"
    assert sorted(project.rglob("*")) == before
