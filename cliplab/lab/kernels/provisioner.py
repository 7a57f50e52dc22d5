"""The entry points ``cliplab-fork`` and ``cliplab-leash`` of jupyter_client."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from jupyter_client.provisioning import LocalProvisioner

from cliplab.lab.kernels.forkserver import ForkError, fork_server, give_up


class LeashedProvisioner(LocalProvisioner):  # type: ignore[misc]
    """Starts kernels as they always start; on Linux they end with this process at once."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch the kernel by way of ``leash.py``."""
        if sys.platform == "linux":
            leash = Path(__file__).with_name("leash.py")
            cmd = [sys.executable, "-I", "-S", str(leash), str(os.getpid()), *cmd]
        return await super().launch_kernel(cmd, **kwargs)

    async def send_signal(self, signum: int) -> None:
        """Send it; not the interrupt before the end, which a kernel may still print an error of."""
        if not (signum == signal.SIGINT and self.parent.shutting_down):
            await super().send_signal(signum)


class ForkProvisioner(LeashedProvisioner):
    """Forks ``python -m ipykernel_launcher``; any other command starts as it always does."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork the kernel, or launch it the stock way where that cannot be."""
        plain = cmd[:3] == [sys.executable, "-m", "ipykernel_launcher"]
        folder = Path(kwargs.get("cwd") or os.getcwd())
        server = fork_server(folder) if plain else None
        if server is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.cwd = folder
        env = kwargs["env"] | {"JPY_PARENT_PID": str(os.getpid())}
        try:
            self.process = server.fork(cmd[3:], env, str(folder))
        except ForkError:
            give_up(server)
            return await super().launch_kernel(cmd, **kwargs)
        self.pid = self.pgid = self.process.pid
        return self.connection_info
