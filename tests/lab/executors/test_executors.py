import gc
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from needs import need
from recording import LIGHT
from waiting import LONG, is_gone, wait_until

from cliplab.lab.batch.batch import BatchResult, run_batch
from cliplab.lab.batch.plan import plan
from cliplab.lab.batch.progress import Silent
from cliplab.lab.batch.spec import WORKER_DIED, How, RunSpec, load_finished
from cliplab.lab.batch.worker import run_one
from cliplab.lab.executors.opening import open_executor

need("distributed", "cluster")
pytestmark = pytest.mark.slow

MEASURE = """
import random, signal
seeds = range(first_seed, first_seed + n_seeds)
losses = [random.Random(seed).random() * lr for seed in seeds]
blocked = str(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
rows = [{"arm": f"lr={lr}", "seed": s, "loss": x} for s, x in zip(seeds, losses)]
record([row | {"blocked": blocked} for row in rows])
"""
# Says where it runs, and ends when it may.
WAIT = """
import os, time
open(f"started-{lr}-{os.getpid()}", "w").close()
while not os.path.exists("go"):
    time.sleep(0.05)
"""
WAIT_FOR_OWN = WAIT.replace('"go"', 'f"go-{lr}"')
# Kills its worker: for lr = 1 the first time, for lr = 2 always.
DIE = """
import glob, os, time
begun = len(glob.glob(f"begun-{lr}-*"))
open(f"begun-{lr}-{os.getpid()}", "w").close()
if begun < {1: 1, 2: 3, 3: 0}[lr]:
    os.kill(int(os.environ["JPY_PARENT_PID"]), 9)
    time.sleep(3600)
"""
RECORD = "record([dict(arm=str(lr), seed=0)])"


@pytest.fixture
def specs(tmp_path, make_notebook) -> Callable[..., list[RunSpec]]:
    def make(*cells: str, runs: int, kernel: str = "stock") -> list[RunSpec]:
        path = tmp_path / "nb" / "01_runs.ipynb"
        make_notebook(path, LIGHT, *cells, parameters="lr: float = 0.1  # step")
        grid = {"lr": list(range(1, runs + 1))}
        return plan([path], "quick", tmp_path / "results", grid=grid, how=How(kernel=kernel))

    return make


class Cluster:
    """``dask scheduler`` and ``dask worker`` processes, on one port whatever happens to them."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.address = f"127.0.0.1:{server.getsockname()[1]}"
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, kind: str, *arguments: str, deaths_allowed: int = 3) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
        with open(self.folder / "cluster.log", "ab") as log:
            env = os.environ | {
                "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(deaths_allowed)
            }
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=env)
        self.processes.append(process)
        return process

    def start_scheduler(self, deaths_allowed: int = 3) -> subprocess.Popen[bytes]:
        host, port = self.address.split(":")
        arguments = ["--host", host, "--port", port, "--no-dashboard"]
        process = self.start("scheduler", *arguments, deaths_allowed=deaths_allowed)
        wait_until(lambda: answers(host, int(port)))
        return process

    def start_worker(self, nanny: str = "--no-nanny") -> subprocess.Popen[bytes]:
        return self.start("worker", f"tcp://{self.address}", "--nthreads", "1", nanny)

    def close(self) -> None:
        for process in self.processes:
            end(psutil.Process(process.pid) if process.poll() is None else None)
            process.wait()


def answers(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def end(process: psutil.Process | None) -> None:
    if process and process.is_running():
        family = [process, *process.children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family)


@pytest.fixture
def open_() -> Iterator[Callable[[str, int], Executor]]:
    """Executors that end with the test, whatever is in flight."""
    opened: list[Any] = []

    def open_one(name: str, jobs: int) -> Executor:
        opened.append(open_executor(name, jobs))
        return opened[-1]

    yield open_one
    for executor in opened:
        executor.kill()


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.close()


def started(specs: list[RunSpec]) -> list[int]:
    """The kernels that have begun to wait."""
    return [int(p.name.split("-")[2]) for p in specs[0].notebook.parent.glob("started-*")]


def go(specs: list[RunSpec]) -> None:
    specs[0].notebook.with_name("go").touch()


def test_the_rows_are_those_of_the_local_executor(specs, open_, capfd):
    planned = specs(MEASURE, runs=2)
    rows = []
    for name in ["local", "dask"]:
        with open_(name, 1) as executor:
            result = run_batch(planned, executor)
        assert not result.failures
        rows.append([record.rows for record in result.records])
        for spec in planned:
            spec.record_path.unlink()
    assert rows[0] == rows[1]
    assert capfd.readouterr().err.count("\n") <= 1  # the dashboard's link


def test_what_is_in_flight_is_ended_and_the_rest_cancelled(specs, open_):
    planned = specs(WAIT, RECORD, runs=3)
    executor = open_("dask", 1)
    futures = [executor.submit(run_one, spec) for spec in planned]
    error = executor.submit(os.listdir, "/nowhere")
    wait_until(lambda: started(planned))
    assert [future.running() for future in futures] == [True, False, False]
    executor.kill()
    executor.kill()
    wait_until(lambda: is_gone(started(planned)[0]))
    assert "stopped" in str(futures[0].exception())
    assert error.cancelled()
    assert all(future.cancelled() for future in futures[1:])
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(os.getpid)


@pytest.fixture
def batch() -> Iterator[Callable[..., Future[BatchResult]]]:
    """Batches in threads of their own, to be watched."""
    thread = ThreadPoolExecutor(1)
    yield partial(thread.submit, run_batch)
    thread.shutdown(wait=False)  # it ends with the batch's executor


@pytest.mark.parametrize("deaths_allowed", [pytest.param(0, marks=pytest.mark.nightly), 3])
def test_a_run_survives_one_nanny_whatever_the_scheduler_allows(
    deaths_allowed, specs, cluster, open_, batch
):
    planned = specs(WAIT, RECORD, runs=3)
    cluster.start_scheduler(deaths_allowed)
    workers = [cluster.start_worker("--nanny") for _ in range(2)]
    executor = open_(f"dask://{cluster.address}", 2)
    error = executor.submit(os.listdir, "/nowhere").exception(timeout=LONG)
    assert isinstance(error, FileNotFoundError)
    result = batch(planned, executor)
    wait_until(lambda: len(started(planned)) == 2)
    victim = started(planned)[0]
    parents = {process.pid for process in psutil.Process(victim).parents()}
    (nanny,) = (worker for worker in workers if worker.pid in parents)
    nanny.kill()
    wait_until(lambda: is_gone(victim))
    go(planned)
    assert [r.params["lr"] for r in result.result(timeout=LONG).records] == [1, 2, 3]
    assert len(started(planned)) == 4
    assert all(load_finished(spec) for spec in planned)


class Retries(Silent):
    """A display that remembers whose worker died, and who came to an end."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def retried(self, spec: RunSpec, error: str) -> None:
        self.told.append(f"{spec.params['lr']:g}: {error}")


def test_a_worker_that_is_slow_to_be_back_is_no_second_death(specs, open_):
    """Dask itself would end it after a while, as soon as it is back: the run's second death."""
    import dask

    planned, told = specs(DIE, RECORD, runs=3), Retries()
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}):
        result = run_batch(planned, open_("dask", 1), told)
    assert [record.params["lr"] for record in result.records] == [1, 3]
    assert [(f.spec.params["lr"], f.error) for f in result.failures] == [(2, WORKER_DIED)]
    assert sorted(told.told) == [f"1: {WORKER_DIED}", f"2: {WORKER_DIED}"]
    folder = planned[0].notebook.parent
    assert [len([*folder.glob(f"begun-{lr}.0-*")]) for lr in (1, 2, 3)] == [2, 2, 1]


def workers() -> list[psutil.Process]:
    """The processes of this one's cluster."""
    return [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_a_worker_that_is_killed_while_it_starts_is_replaced(open_):
    def kill() -> None:
        wait_until(workers)
        workers()[0].kill()

    with ThreadPoolExecutor(1) as thread:
        killed = thread.submit(kill)
        executor = open_("dask", 1)
        assert killed.done()
    assert executor.submit(os.getppid).result(timeout=LONG) == os.getpid()


@pytest.mark.nightly
def test_a_worker_killed_at_any_moment_of_a_run_is_one_retry(specs, open_, batch):
    planned = specs(WAIT_FOR_OWN, RECORD, runs=20, kernel="fork")
    (executor, told), rng = (open_("dask", 1), Retries()), random.Random()
    result = batch(planned, executor, told)
    for spec in planned:
        wait_until((spec.directory / ".lock").exists)
        time.sleep(rng.uniform(0, 3))
        workers()[0].kill()
        (spec.notebook.parent / f"go-{spec.params['lr']}").touch()
    found = result.result(timeout=LONG)
    assert len(found.records) == len(planned), found.failures
    assert sorted(told.told) == sorted(f"{spec.params['lr']:g}: {WORKER_DIED}" for spec in planned)


def test_a_scheduler_may_end_and_come_back(specs, cluster, open_, monkeypatch):
    monkeypatch.setattr("cliplab.lab.executors.dask.ANSWER_S", 3)
    planned = specs(WAIT, RECORD, runs=2)
    scheduler, worker = cluster.start_scheduler(), cluster.start_worker()
    executor = open_(f"dask://{cluster.address}", 2)
    lost = executor._client
    futures = [executor.submit(run_one, spec) for spec in planned]
    wait_until(lambda: started(planned))
    scheduler.kill()
    scheduler.wait()
    end(psutil.Process(worker.pid))
    wait_until(lambda: lost.status == "closed")  # the client gives up
    assert not any(future.done() for future in futures)
    go(planned)
    cluster.start_scheduler()
    cluster.start_worker()
    assert len(run_batch(planned, executor).records) == 2
    assert [f.result(timeout=LONG).params["lr"] for f in futures] == [1, 2]


def test_nothing_is_left_of_a_driver_that_was_stopped(specs, tmp_path, monkeypatch):
    """Killed, and at the end of its terminal; the same command then does only what is missing."""
    planned = specs(WAIT_FOR_OWN, RECORD, runs=2)
    notebook, results = planned[0].notebook, planned[0].results
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    command = [sys.executable, "-m", "cliplab.cli", "run", notebook, "--notebooks", notebook.parent]
    command += ["--results", results, "--reports", tmp_path / "html", "--grid", "lr=1,2"]
    command += ["--executor", "dask", "--jobs", "1", "--kernel", "stock"]
    (notebook.parent / "go-1.0").touch()

    def stop(send: Callable[[int, int], None], number: int, kernels: int) -> None:
        driver = psutil.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        wait_until(lambda: len(started(planned)) == kernels or driver.poll() is not None)
        family = driver.children(recursive=True)
        assert len(family) > 2
        send(driver.pid, number)
        driver.wait()
        wait_until(lambda: all(map(is_gone, family)))

    stop(os.kill, signal.SIGKILL, kernels=2)
    stop(os.killpg, signal.SIGHUP, kernels=3)
    (notebook.parent / "go-2.0").touch()
    again = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert again.returncode == 0, again.stderr
    assert "1 done, 1 to run" in again.stderr
    assert len(started(planned)) == 4
    assert not [*scratch.glob("cliplab-*"), *scratch.glob("tmp*")]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "'': expected local, dask, dask://host:port or dask:cluster.yaml"),
        ("slurm", "'slurm': expected local, dask, "),
        ("dask:", "expected local, dask, "),
        ("dask://host", "'dask://host': expected local, dask, "),
        ("dask:none.yaml", "'dask:none.yaml': none.yaml: No such file or directory"),
        ("dask:text.yaml", "text.yaml is not YAML: "),
        ("dask:list.yaml", "list.yaml: expected cluster, jobs and the options"),
    ],
)
def test_bad_names_are_refused(name, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.yaml").write_text("a: [")
    Path("list.yaml").write_text("[1]")
    with pytest.raises(ValueError, match="executor ") as caught:
        open_executor(name, 2)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_scheduler_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr("cliplab.lab.executors.dask.ANSWER_S", 1)
        for place in [f"127.0.0.1:{port}", "nowhere.invalid:8786", "127.0.0.1:1"]:
            with pytest.raises(ValueError, match=f"no Dask scheduler answers at tcp://{place}: "):
                open_executor(f"dask://{place}", 2)


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [("distributed", "dask", "dask"), ("dask_jobqueue", "dask:c.yaml", "cluster")],
)
def test_what_is_not_installed_is_named(module, name, extra, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text("cluster: SLURMCluster")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"{module} is not installed: .*cliplab\[{extra}\]"):
        open_executor(name, 2)


SBATCH = """#!/usr/bin/env bash
# Stands in for Slurm's: starts the job at once, in a process group of its own.
test -e "$QUEUE/closed" && { echo "the partition is down" >&2; exit 1; }
cp "$1" "$QUEUE/job"
setsid bash "$QUEUE/job" < /dev/null >> "$QUEUE/log" 2>&1 &
echo $! >> "$QUEUE/jobs"
echo "Submitted batch job $!"
"""
SCANCEL = """#!/usr/bin/env bash
kill -9 -- "-$1"
"""


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Iterator[Path]:
    folder = tmp_path / "queue"
    folder.mkdir()
    for name, script in [("sbatch", SBATCH), ("scancel", SCANCEL)]:
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(folder))
    monkeypatch.setenv("DASK_CONFIG", str(folder))  # jobqueue leaves a file there
    yield folder
    for job in jobs(folder):
        if not is_gone(job):
            os.killpg(job, signal.SIGKILL)


def jobs(queue: Path) -> list[int]:
    path = queue / "jobs"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize("processes", [1, 2])
def test_jobs_of_a_queue_are_replaced(processes, specs, queue, open_, batch, monkeypatch):
    need("dask_jobqueue", "cluster")
    monkeypatch.setattr("cliplab.lab.executors.clusters.LOST_S", 2)
    monkeypatch.setattr("cliplab.lab.executors.clusters.LOOK_S", 1)
    planned = specs(WAIT, RECORD, runs=2)
    described = queue / "cluster.yaml"
    described.write_text(
        "cluster: SLURMCluster\njobs: 1\nmemory: 4GB\nscheduler_options: {host: 127.0.0.1}\n"
        f"cores: {processes}\nprocesses: {processes}\n"
        "worker_extra_args: [--lifetime, 55m, --lifetime-stagger, 4m]\n"
    )
    executor = open_(f"dask:{described}", 1)
    result = batch(planned, executor)
    wait_until(lambda: started(planned))
    os.killpg(jobs(queue)[0], signal.SIGKILL)  # its time is over
    wait_until(lambda: len(jobs(queue)) > 1)
    go(planned)
    assert [r.params["lr"] for r in result.result(timeout=LONG).records] == [1, 2]
    executor.shutdown()
    wait_until(lambda: all(is_gone(job) for job in jobs(queue)))
    assert len(jobs(queue)) == 2


@pytest.mark.filterwarnings("ignore:unclosed cluster:ResourceWarning")
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("jobs: 1", "cluster: expected one of HTCondorCluster, LSFCluster, "),
        ("cluster: SlurmCluster", "SLURMCluster, got 'SlurmCluster'"),
        ("cluster: SLURMCluster\njobs: two", "jobs: expected the number of jobs"),
        ("cluster: PBSCluster", "PBSCluster needs the command qsub, which is not here"),
        ("cluster: SLURMCluster", "cores"),
        ("cluster: SLURMCluster\ncores: 1\nmemory: 1GB\nwalltme: 1", "walltme"),
        ("cluster: SLURMCluster\ncores: 1\nmemory: 1GB", "the partition is down"),
    ],
)
def test_a_bad_description_is_refused(text, complaint, queue):
    need("dask_jobqueue", "cluster")
    (queue / "closed").touch()
    (queue / "cluster.yaml").write_text(text)
    with pytest.raises(ValueError, match="executor ") as caught:
        open_executor(f"dask:{queue}/cluster.yaml", 1)
    error = str(caught.value)
    del caught
    gc.collect()  # dask-jobqueue's half-made clusters complain here, not in a later test
    assert complaint in error
    assert "\n" not in error
