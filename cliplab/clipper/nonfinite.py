"""The error for a gradient that is not finite, at once on a CPU, without waiting elsewhere."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from cliplab.checks import NonFiniteGradientError
from cliplab.norms import dense
from cliplab.parts import Gradients, Partition

KINDS = ("nan", "inf")  # the worst first
SHOWN = 5  # names of tensors in an error


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


def culprits(grads: Gradients, partition: Partition) -> str:
    """Which tensors hold NaN or inf, as an error says it; each is looked at, on this rank only.

    A collective would wait for ranks that see nothing wrong.
    """
    kinds = [None if grad is None else _kind(dense([grad])[0]) for grad in grads]
    bad = [i for i, kind in enumerate(kinds) if kind is not None]
    if not bad and partition.shared:
        return "all entries on this rank are finite: another rank's are not, or the norm overflows"
    if not bad:
        return "all tensors are finite, but the norm overflows"
    shown, more = bad[:SHOWN], len(bad) - SHOWN
    named = {kind: [_name(partition, i) for i in shown if kinds[i] == kind] for kind in KINDS}
    told = "; ".join(f"{kind} in {', '.join(names)}" for kind, names in named.items() if names)
    rest = f" and {more} more" if more > 0 else ""
    here = " on this rank" if partition.shared else ""
    return f"{told}{rest} ({len(bad)} of {len(grads)} tensors{here})"


def _kind(entries: Tensor) -> str | None:
    """The worst that the entries of a tensor are; None where all are finite."""
    if bool(entries.isfinite().all()):
        return None
    return "nan" if bool(entries.isnan().any()) else "inf"


def _name(partition: Partition, i: int) -> str:
    return partition.names[i] or f"tensor {i} of shape {tuple(partition.params[i].shape)}"
