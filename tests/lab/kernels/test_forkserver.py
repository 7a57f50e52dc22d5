"""Forked kernels are as good as stock ones, and nothing of them stays."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import is_gone, wait_until

from cliplab.lab.batch.batch import run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.batch.spec import How
from cliplab.lab.executors.local import LocalExecutor
from cliplab.lab.kernels import forkserver
from cliplab.lab.kernels.forkserver import ForkError, ForkServer
from cliplab.lab.kernels.processes import adopt_orphans

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only"),
]

LOOK = """
import os, random, sys
before = [name for name in sys.modules if name.split(".")[0] == "cliplab"]
import matplotlib, numpy, pandas, torch
import matplotlib.pyplot as plt
plt.plot([0, 1])
plt.show()
from cliplab.lab import record
"""
RECORD = """
record([{
    "arm": tag, "seed": 0, "preloaded": ",".join(before), "backend": matplotlib.get_backend(),
    "draws": f"{torch.rand(1).item()} {numpy.random.rand()} {random.random()}",
    "threads": torch.get_num_threads(), "cuda": torch.cuda.is_initialized(),
    "bad_fork": torch.cuda._is_in_bad_fork(), "rows": pandas.get_option("display.max_columns"),
    "hash": hash("text"), "argv": sys.argv[0], "file": __import__("__main__").__name__,
    "path": ":".join(sys.path), "here": os.getcwd(), "stdin": sys.stdin is None,
    "leader": os.getpgid(0) == os.getpid(),
}])
"""


@pytest.fixture
def notebook(tmp_path, make_notebook) -> Path:
    return make_notebook(tmp_path / "nb" / "01.ipynb", LOOK, RECORD, parameters="tag: str = 'a'")


def test_a_forked_kernel_is_like_a_stock_one(notebook, tmp_path):
    found = {}
    with LocalExecutor(1) as executor:
        for kernel in ("fork", "stock"):
            specs = plan(
                [notebook],
                "quick",
                tmp_path / kernel,
                grid={"tag": ["a", "b"]},
                how=How(kernel=kernel),
            )
            result = run_batch(specs, executor)
            assert result.failures == []
            found[kernel] = result.records
    assert [r.provenance["kernel"] for r in found["fork"]] == ["forked", "forked"]
    assert [r.provenance["kernel"] for r in found["stock"]] == ["stock", "stock"]
    assert all(0 < r.provenance["cpu_s"] < 60 for r in found["fork"])

    draws = [row.pop("draws").split() for rs in found.values() for r in rs for row in r.rows]
    assert all(len(set(column)) == 4 for column in zip(*draws, strict=True))  # never the same
    assert [r.rows for r in found["fork"]] == [r.rows for r in found["stock"]]
    (row,) = found["fork"][0].rows
    assert (row["preloaded"], row["cuda"], row["bad_fork"]) == ("", False, False)
    assert (row["threads"], row["leader"], row["here"]) == (1, True, str(notebook.parent))
    for record in [*found["fork"], *found["stock"]]:
        assert "image/png" in (record.directory / "notebook.ipynb").read_text()


@pytest.fixture
def server(tmp_path) -> Iterator[ForkServer]:
    server = ForkServer(tmp_path, {**os.environ, "OMP_NUM_THREADS": "1"})
    yield server
    server.close()


def start_kernel(server: ForkServer, folder: Path, code: str) -> forkserver.ForkedKernel:
    """A kernel of which only the first step is wanted: code run where ipykernel would start."""
    (folder / "code.py").write_text(code)
    env = {**os.environ, "HOME": str(folder), "IPYTHONDIR": str(folder)}
    argv = ["-f", str(folder / "kernel.json"), f"--IPKernelApp.exec_files={folder / 'code.py'}"]
    return server.fork([*argv, "--IPKernelApp.ip=127.0.0.1"], env, str(folder))


SPAWN = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
with open("pids", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
"""


def test_the_server_reports_how_a_kernel_ended(server, tmp_path):
    kernel = start_kernel(server, tmp_path, SPAWN)
    wait_until((tmp_path / "pids").exists)
    assert kernel.poll() is None
    assert psutil.Process(kernel.pid).ppid() == server.process.pid
    kernel.send_signal(signal.SIGKILL)
    assert kernel.wait() == kernel.poll() == -9
    assert kernel.cpu_s > 0
    kernel.kill()  # once more does no harm
    ended = start_kernel(server, tmp_path, "import os; os._exit(7)")
    assert ended.wait() == 7


@pytest.mark.parametrize("how", ["close", "kill -9"])
def test_kernels_end_with_their_server_and_their_children_with_its_owner(how, server, tmp_path):
    start_kernel(server, tmp_path, SPAWN)
    wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    kernel, child = map(psutil.Process, map(int, (tmp_path / "pids").read_text().split()))
    if how == "close":
        server.close()
        wait_until(lambda: is_gone(child))
    else:
        server.process.kill()
    wait_until(lambda: is_gone(kernel))
    server.process.wait()
    with pytest.raises(ForkError):
        server.fork(["-f", "x"], os.environ, str(tmp_path))
    if how != "close":
        child.kill()  # whose end is the budget's business: see test_hostile.py


def test_a_process_ends_its_server_in_good_order(tmp_path):
    code = (
        "from cliplab.lab.kernels.forkserver import *\n"
        f"print(fork_server(Path({str(tmp_path)!r})).process.pid)"
    )
    command = [sys.executable, "-W", "always", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    wait_until(lambda: is_gone(int(done.stdout)))


FOLDERS = [Path(__file__).parent, Path(__file__).parents[2]]  # this module, and tests/waiting.py


def test_nothing_outlives_an_owner_that_is_killed(tmp_path):
    code = (
        "import os, sys, time; from pathlib import Path\n"
        f"sys.path[:0] = {[str(folder) for folder in FOLDERS]}\n"
        "from test_forkserver import *\n"
        f"server = ForkServer(Path({str(tmp_path)!r}))\n"
        f"kernel = start_kernel(server, Path({str(tmp_path)!r}), SPAWN); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code])
    pids = tmp_path / "pids"
    wait_until(lambda: (pids.exists() and pids.read_text()) or owner.poll() is not None)
    family = psutil.Process(owner.pid).children(recursive=True)
    assert len(family) >= 3  # server, kernel, its child
    owner.kill()
    owner.wait()
    wait_until(lambda: all(map(is_gone, family)))


def test_a_stock_kernel_that_is_starting_ends_with_its_worker(notebook, tmp_path):
    adopt_orphans()  # as `systemd --user` does: ipykernel itself ends only where pid 1 adopts it
    code = (
        "from cliplab.lab.batch.plan import *; from cliplab.lab.batch.worker import run_one\n"
        f"paths = Path({str(notebook)!r}), Path({str(tmp_path / 'results')!r})\n"
        "(spec,) = plan(paths[:1], 'quick', paths[1], how=How(kernel='stock'))\n"
        "run_one(spec)"
    )
    worker = psutil.Popen([sys.executable, "-c", code])
    wait_until(lambda: any("ipykernel_launcher" in child.cmdline() for child in worker.children()))
    family = worker.children()
    worker.kill()
    worker.wait()
    wait_until(lambda: all(map(is_gone, family)))


def test_a_new_environment_gets_a_new_server(monkeypatch, tmp_path):
    monkeypatch.setattr(forkserver, "_server", None)
    first = forkserver.fork_server(tmp_path)
    assert first is forkserver.fork_server(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    second = forkserver.fork_server(tmp_path)
    assert second is not first
    assert not first.alive()
    second.process.kill()
    second.process.wait()
    third = forkserver.fork_server(tmp_path)
    assert third.alive()
    third.close()


@pytest.mark.parametrize("trouble", ["it does not start", "it is not registered"])
def test_on_any_doubt_the_stock_kernel_runs(trouble, notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(forkserver, "_server", None)
    monkeypatch.setattr(forkserver, "_refused", None)
    if trouble == "it does not start":
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "zygote.py").write_text("raise SystemExit(1)")
        monkeypatch.setattr(forkserver, "__file__", str(broken / "forkserver.py"))
    else:
        monkeypatch.setattr(forkserver, "PROVISIONER", "nobody-knows-it")
    from cliplab.lab.batch.worker import run_one

    (spec,) = plan([notebook], "quick", tmp_path / "results")
    assert run_one(spec).provenance["kernel"] == "stock"
    assert forkserver.fork_server(notebook.parent) is None


SLOW_TO_ANSWER = """
import time
kernel = get_ipython().kernel
info = kernel.shell_handlers["kernel_info_request"]
async def slow(*arguments):
    await info(*arguments)
    time.sleep(1)
kernel.shell_handlers["kernel_info_request"] = slow
"""


def test_a_kernel_that_still_works_at_the_end_says_nothing_of_being_ended(
    notebook, make_notebook, tmp_path, capfd
):
    from cliplab.lab.batch.worker import run_one

    make_notebook(notebook, SLOW_TO_ANSWER)
    (spec,) = plan([notebook], "quick", tmp_path / "results", how=How(kernel="stock"))
    run_one(spec)
    assert capfd.readouterr() == ("", "")
