"""The error for a gradient that is not finite, at once on a CPU, without waiting elsewhere."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from cliplab.checks import NonFiniteGradientError


class Watch:
    """Flags on their way from a device, one a step, raised when they have arrived."""

    def __init__(self) -> None:
        self._pending: deque[tuple[int, Tensor, torch.Event]] = deque()

    def put(self, step: int, bad: Tensor) -> None:
        """Send the flag of a step to the host without waiting for it."""
        flag = torch.empty((), dtype=torch.bool, device="cpu", pin_memory=True)
        flag.copy_(bad, non_blocking=True)
        arrived = torch.Event(device=bad.device)
        arrived.record()
        self._pending.append((step, flag, arrived))

    def check(self, wait: bool = False) -> None:
        """Raise ``NonFiniteGradientError`` for the first bad step known; ``wait`` for all."""
        while self._pending:
            step, flag, arrived = self._pending[0]
            if wait:
                arrived.synchronize()
            elif not arrived.query():
                return
            self._pending.popleft()
            if bool(flag):
                self._pending.clear()
                raise NonFiniteGradientError(f"gradient norm was not finite at step {step}")
