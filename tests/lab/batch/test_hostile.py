"""Notebooks and disks that misbehave: each fails alone, and leaves nothing behind."""

import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from recording import LIGHT, write_notebook
from waiting import is_gone, wait_until

from cliplab.cli.main import main
from cliplab.lab.batch.batch import BatchResult, run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.batch.spec import How
from cliplab.lab.claims.ledger import Ledger
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.report.site import write_report
from cliplab.lab.report.terminal import failure_table

ROOT = Path(__file__).parents[3]
RECORD = f"{LIGHT}\nrecord([{{'arm': 'a', 'seed': 0}}])"
# A child in a session of its own whose parent is gone: no signal to the kernel's group reaches it.
DAEMON = """
import os, time
from pathlib import Path
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        Path("pids").open("a").write(f"{os.getpid()} ")
        time.sleep(600)
    os._exit(0)
while not os.path.exists("pids"):
    time.sleep(0.05)
"""
FOREVER = "import time\nfor tick in __import__('itertools').count(): time.sleep(0.1)"
DEAF = (
    """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
    + FOREVER
)
GREEDY = """
import os, time
hoard = []
while True:
    hoard.append(bytearray(os.urandom(1) * 2**24))
    time.sleep(0.01)
"""
SEGFAULT = "import ctypes\nctypes.string_at(0)"
FLOOD = "for _ in range(1000):\n    print('x' * 99_999)"


CELLS = {
    "01_good": [RECORD],
    "02_daemon": [DAEMON, RECORD],
    "03_forever": [DAEMON, DEAF],
    "04_greedy": [GREEDY],
    "05_segfault": [SEGFAULT],
    "06_exits": ["import os; os._exit(3)"],
    "07_flood": [FLOOD, RECORD],
    "08_good": [RECORD],
}


KINDS = ("fork", "stock")


def run_all(folder: Path, minutes: float) -> BatchResult:
    """All of them in both kinds of kernel, at once: the two that do not end wait together."""
    specs = []
    for name, kernel in product(CELLS, KINDS):
        notebook = write_notebook(folder / kernel / f"{name}.ipynb", *CELLS[name])
        budget_s = 60 * minutes if name == "03_forever" else 3600
        how = How(budget_s=budget_s, memory_gb=1.0, kernel=kernel)
        specs += plan([notebook], "quick", folder / "results" / kernel, how=how)
    with LocalExecutor(3) as executor:
        return run_batch(specs, executor)


def of(kernel: str, folder: Path, result: BatchResult) -> BatchResult:
    results = folder / "results" / kernel
    return replace(
        result,
        records=[r for r in result.records if r.directory.is_relative_to(results)],
        failures=[f for f in result.failures if f.spec.results == results],
    )


@pytest.mark.slow
def test_each_fails_alone_and_leaves_no_process(tmp_path, monkeypatch, patience):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    minutes = patience / 3  # what a notebook that does not end has to end in
    both = run_all(tmp_path, minutes)
    for kernel in KINDS:
        result = of(kernel, tmp_path, both)
        check_what_became_of_each(kernel, result, minutes)
        daemons = [int(pid) for pid in (tmp_path / kernel / "pids").read_text().split()]
        assert len(daemons) >= 2
        wait_until(lambda gone=daemons: all(map(is_gone, gone)))
        check_what_is_said(result, tmp_path / kernel, f"{minutes:.3g}")


def check_what_became_of_each(kernel: str, result: BatchResult, minutes: float) -> None:
    assert [r.notebook for r in result.records] == ["01_good", "02_daemon", "07_flood", "08_good"]
    kernels = {record.provenance["kernel"] for record in result.records}
    assert kernels == {"forked" if kernel == "fork" and sys.platform == "linux" else "stock"}
    assert {f.spec.label: (f.cell, f.error) for f in result.failures} == {
        "03_forever": ("4/4", f"over its budget of {minutes:.3g} minutes"),
        "04_greedy": ("3/3", "over its budget of 1 GB of memory"),
        "05_segfault": ("3/3", "the kernel died: killed by SIGSEGV"),
        "06_exits": ("3/3", "the kernel died: exit status 3"),
    }
    for failure in result.failures:
        names = {path.name for path in failure.spec.directory.iterdir()}
        assert names == {".lock", "error.txt", "notebook.ipynb"}


def check_what_is_said(result: BatchResult, folder: Path, minutes: str) -> None:
    table = failure_table(result.failures).splitlines()
    assert len(table) == 5
    assert re.split(r"\s{2,}", table[0]) == ["failed run", "cell", "error", "details"]
    assert table[1].startswith(f"03_forever   4/4   over its budget of {minutes} minutes  ")
    index, bad = write_report(result.records, [], Ledger(), folder / "reports", result.failures)
    assert bad == []
    assert "over its budget of 1 GB of memory" in index.read_text()
    pages = list((folder / "reports" / "pages").iterdir())
    assert len(pages) == 8
    assert max(page.stat().st_size for page in pages) < 2e6  # the flood is cut short


def test_a_folder_that_cannot_be_written_fails_its_run_only(tmp_path, make_notebook):
    one, two = (make_notebook(tmp_path / "nb" / f"{n}.ipynb", RECORD) for n in ("01", "02"))
    results = tmp_path / "results"
    results.mkdir()
    (results / "01").write_text("in the way")
    specs = plan([one, two], "quick", results, how=How(kernel="stock"))
    with LocalExecutor(2) as executor:
        result = run_batch(specs, executor)
    assert [record.notebook for record in result.records] == ["02"]
    (failure,) = result.failures
    assert "Not a directory" in failure.error or "File exists" in failure.error
    assert (results / "01").read_text() == "in the way"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB; only the administrator can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except OSError:
        done = None
    if done is None or done.returncode:
        pytest.skip("cannot mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_fails_what_needs_it_and_the_rest_is_done_when_there_is_room(
    small_disk, tmp_path, make_notebook, monkeypatch, capsys
):
    big = "import os, base64\nprint(base64.b64encode(os.urandom(300_000)).decode())\n" + RECORD
    names = ["01_small", "02_big", "03_small"]
    for name in names:
        code = big if "big" in name else RECORD
        make_notebook(tmp_path / "notebooks" / f"{name}.ipynb", code)
    monkeypatch.chdir(tmp_path)
    command = ["run", "--kernel", "stock", "--results", str(small_disk / "results")]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert "No space left on device" in err
    done = {path.parts[-4] for path in small_disk.rglob("record.json")}
    assert done == {"01_small", "03_small"}

    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert main(command) == 0
    assert "2 done, 1 to run" in capsys.readouterr().err
