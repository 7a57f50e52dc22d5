"""The process that kernels are forked from: it imports third-party packages once, cliplab never.

Started as a script by :mod:`cliplab.lab.kernels.forkserver` with the number of an inherited socket.
Each message there hands over one more socket, which carries a request for a kernel and then the
answers: its pid, and how it ended. When the owner's end closes, this process and its kernels end.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # this file's folder: cliplab's modules are no top-level names

import builtins
import ctypes
import gc
import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from select import select
from types import SimpleNamespace
from typing import Any, NoReturn

PRELOADED = (
    "ipykernel.kernelapp",
    "IPython.core.completer",
    "torch",
    "torch.func",
    "numpy",
    "pandas",
    "matplotlib.pyplot",
    "seaborn",
    "scipy.stats",
    "gymnasium",
    "tqdm",  # never tqdm.auto: it looks for a kernel when it is imported
    "psutil",
)
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36

Kernels = dict[int, socket.socket]


def main(number: int) -> NoReturn:
    """Preload, then fork a kernel for each request, until the owner is gone."""
    owner = socket.socket(fileno=number)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a kernel leaves behind is found here
    gc.disable()  # there is no garbage yet
    preload(PRELOADED)
    gc.freeze()  # shared pages stay shared
    gc.enable()
    try:
        serve(owner)
    finally:
        _kill_descendants()
        os._exit(0)


def preload(modules: Sequence[str]) -> None:
    """Import what is installed, as inside a kernel; no thread and no CUDA context may come up."""
    builtins.get_ipython = lambda: SimpleNamespace(kernel=True)  # type: ignore[attr-defined]
    for name in modules:
        with suppress(ModuleNotFoundError):
            import_module(name)
    del builtins.get_ipython  # type: ignore[attr-defined]
    torch = sys.modules.get("torch")
    alone = len(os.listdir("/proc/self/task")) == 1
    if not alone or "ipykernel" not in sys.modules or (torch and torch.cuda.is_initialized()):
        os._exit(1)  # not fit to be forked from


def serve(owner: socket.socket) -> None:
    """Answer requests and report the kernels that ended; returns when the owner has gone."""
    wake, signals = socket.socketpair()
    wake.setblocking(False)
    signals.setblocking(False)
    signal.set_wakeup_fd(signals.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    kernels: Kernels = {}
    while True:
        ready, _, _ = select([owner, wake], [], [])
        if wake in ready:
            wake.recv(4096)
            report_ended(kernels)
        if owner in ready:
            _, handed, _, _ = socket.recv_fds(owner, 1, 1)
            if not handed:
                return
            answers = socket.socket(fileno=handed[0])
            request = json.loads(answers.makefile("rb").read())
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for ours in (owner, wake, signals, answers, *kernels.values()):
                    ours.close()
                become_kernel(parent, **request)
            kernels[pid] = answers
            _send(answers, {"pid": pid})


def report_ended(kernels: Kernels) -> None:
    """Reap every child that ended, and tell how a kernel did."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if answers := kernels.pop(pid, None):
            cpu_s = usage.ru_utime + usage.ru_stime
            _send(answers, {"status": os.waitstatus_to_exitcode(status), "cpu_s": cpu_s})
            answers.close()


def become_kernel(parent: int, argv: list[str], env: dict[str, str], cwd: str) -> NoReturn:
    """In the child: what ``python -m ipykernel_launcher …`` would be, and its end."""
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    import zmq
    from ipykernel.kernelapp import IPKernelApp

    class App(IPKernelApp):
        """Loses nothing that a cell floods its client with: the cell's end would be lost, too."""

        def init_iopub(self, context: Any) -> None:
            context.setsockopt(zmq.SNDHWM, 0)
            super().init_iopub(context)

    sys.argv = [str(find_spec("ipykernel_launcher").origin), *argv]  # type: ignore[union-attr]
    code = 1
    try:
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        time.tzset()
        reseed()
        # The pid whose end the kernel looks out for is read when ipykernel is imported.
        App.launch_instance([*argv, f"--IPKernelApp.parent_handle={parent}"])
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream:
                stream.flush()
        os._exit(code)  # no interpreter tear-down


def reseed() -> None:
    """New global random states, else unseeded draws would be equal in all kernels."""
    for module, seed in (("numpy.random", "seed"), ("torch", "seed")):
        if module in sys.modules:
            getattr(sys.modules[module], seed)()  # `random` does so itself when forked


def _send(answers: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):  # nobody may listen any more
        answers.sendall(json.dumps(message).encode() + b"\n")


def _kill_descendants() -> None:
    import psutil

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    main(int(sys.argv[1]))
