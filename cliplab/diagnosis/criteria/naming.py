"""How parts and steps are named in a message."""

from __future__ import annotations

from torch import Tensor

from cliplab.diagnosis.record import Record


def named(record: Record, mask: Tensor, most: int = 5) -> str:
    """Return the names of some parts, or nothing where there is but one."""
    chosen = mask.tolist()
    names = [name for i, name in enumerate(record.names) if chosen[i]]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")


def first_few(steps: Tensor, most: int = 5) -> str:
    """Return the first of some numbers of steps, and dots where there are more."""
    return ", ".join(str(int(step)) for step in steps[:most]) + ", ..." * (len(steps) > most)
