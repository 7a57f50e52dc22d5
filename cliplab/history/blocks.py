"""A piece of a ring: room for some steps, and the numbers that belong to each."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from cliplab.checks import described, may_look

NUMBER = 8  # bytes


@dataclass(slots=True)
class Numbers:
    """A number for each step of a block, NaN where none was given.

    One that is a tensor is kept where it lies, in ``on_device [steps]``; ``numbers`` has NaN then.
    """

    numbers: array[float]
    on_device: Tensor | None = None

    @property
    def size(self) -> int:
        """Bytes for each step."""
        return NUMBER if self.on_device is None else 2 * NUMBER

    def put(self, at: int, value: float | Tensor) -> None:
        """Note a number, without waiting for the device it lies on."""
        if not isinstance(value, Tensor):
            self.numbers[at] = value
            return
        if self.on_device is None:
            dtype = torch.promote_types(value.dtype, torch.float32)
            unknown = torch.full((len(self.numbers),), math.nan, dtype=dtype, device=value.device)
            self.on_device = unknown
        self.numbers[at] = math.nan
        self.on_device[at] = value

    def read(self) -> Tensor:
        """All numbers as doubles on the CPU."""
        numbers = torch.frombuffer(self.numbers, dtype=torch.float64)
        if self.on_device is None:
            return numbers
        return numbers.where(~numbers.isnan(), self.on_device.cpu().double())


def unknown(steps: int) -> array[float]:
    """As many numbers, none of them known."""
    return array("d", [math.nan]) * steps


class Block:
    """Room for some steps: ``rows [steps, 6, n_parts]``, and what is one number for each.

    ``updates`` is None until the norm of an update is put in.
    """

    __slots__ = ("lrs", "rows", "updates")

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.lrs = Numbers(unknown(len(rows)))
        self.updates: Numbers | None = None

    def update_norms(self) -> Tensor:
        """Norms of the updates as doubles on the CPU."""
        return (self.updates or Numbers(unknown(len(self.rows)))).read()


def as_norm(norm: object) -> float | Tensor:
    """A norm: a tensor only where looking at it would wait."""
    if isinstance(norm, Tensor):
        if norm.numel() != 1 or not norm.is_floating_point():
            raise ValueError(f"the norm of an update must be one number, got {described(norm)}")
        if not may_look(norm):
            return norm.detach().reshape(())
        norm = float(norm)
    if isinstance(norm, bool) or not isinstance(norm, Real) or norm < 0:
        raise ValueError(f"the norm of an update must be a number >= 0, got {described(norm)}")
    return float(norm)
