"""Kernels forked from a warm process (Linux); on any doubt there is none, and stock kernels run."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

PROVISIONER = "cliplab-fork"
ANSWER_S = 60.0  # for the first kernel the packages are still being imported
# Read once, when Python or a library starts: a kernel forked later cannot take other values.
READ_AT_START = (
    "PYTHON",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "KMP_",
    "TORCH",
    "CUDA",
    "MPL",
    "LD_",
    "LC_",
)

# What is read then: figures are shown inline, and pyarrow, which pandas imports, starts no thread.
AT_START = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


class ForkError(RuntimeError):
    """The fork server gave no kernel."""


class ForkedKernel:
    """A forked kernel, with the part of ``subprocess.Popen`` that jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, answers: socket.socket) -> None:
        self._answers, self._buffer = answers, b""
        self.returncode: int | None = None
        self.cpu_s = 0.0
        answers.settimeout(ANSWER_S)
        self.pid: int = self._next()["pid"]

    def _next(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            try:
                received = self._answers.recv(4096)
            except TimeoutError:
                raise ForkError(f"no kernel within {ANSWER_S:g} s") from None
            if not received:
                raise ForkError("the fork server has ended")
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def poll(self) -> int | None:
        """The exit status, None while the kernel runs."""
        return self._read_end(timeout=0)

    def wait(self) -> int | None:
        """The exit status, as soon as there is one."""
        return self._read_end(timeout=None)

    def _read_end(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                end = self._next()
                self.returncode, self.cpu_s = end["status"], end["cpu_s"]
            except BlockingIOError:
                return None
            except (ForkError, OSError):
                self.returncode = -9  # kernels die with their server
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """A process with the packages imported; it ends with this one, and its kernels with it."""

    def __init__(self, folder: Path, env: Mapping[str, str] = os.environ) -> None:
        ours, theirs = socket.socketpair()
        self.signature = signature(folder, env)
        self.kernels: list[ForkedKernel] = []
        self._owner = ours
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("zygote.py")), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd=folder,
                env={**env, **AT_START},
            )

    def fork(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> ForkedKernel:
        """A kernel with ipykernel_launcher's arguments; :class:`ForkError` if there is none."""
        request = {"argv": list(argv), "env": dict(env), "cwd": cwd}
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._owner, [b"k"], [theirs.fileno()])
            ours.sendall(json.dumps(request).encode())
            ours.shutdown(socket.SHUT_WR)
            kernel = ForkedKernel(ours)
        except (OSError, ForkError) as error:
            ours.close()
            raise ForkError(str(error)) from None
        self.kernels.append(kernel)
        return kernel

    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def close(self) -> None:
        """End it, and the kernels that still run."""
        self._owner.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        if self.alive():
            self.process.kill()
            self.process.wait()
        for kernel in self.kernels:
            kernel.wait()


_server: ForkServer | None = None
_refused: object = None  # the signature of a server that did not give a kernel
_lock = threading.Lock()


def fork_server(folder: Path) -> ForkServer | None:
    """This process's server for kernels in ``folder``, new where anything it was started with has
    changed; None: use stock kernels.
    """
    global _server
    with _lock:
        now = signature(folder, os.environ)
        if _server and (_server.signature != now or not _server.alive()):
            _server.close()
            _server = None
        if _server is None and now != _refused and _possible():
            _server = ForkServer(folder)
            atexit.register(_server.close)  # else its ends are open when the interpreter ends
        return _server


def give_up(server: ForkServer) -> None:
    """End a server that gave no kernel, and start no other here, unless this one was killed."""
    global _refused
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(1)
    if (server.process.returncode or 0) >= 0:
        _refused = server.signature
    server.close()


def _possible() -> bool:
    names = entry_points(group="jupyter_client.kernel_provisioners").names
    return sys.platform == "linux" and PROVISIONER in names


def signature(folder: Path, env: Mapping[str, str]) -> tuple:
    """What a server that runs already could not follow: where, settings, installed packages."""
    settings = sorted((k, v) for k, v in env.items() if k.startswith(READ_AT_START))
    folders = [Path(folder) for folder in sys.path if folder.endswith("-packages")]
    installed = [(str(f), f.stat().st_mtime_ns) for f in folders if f.is_dir()]
    return (sys.executable, str(folder), *settings, *installed)
