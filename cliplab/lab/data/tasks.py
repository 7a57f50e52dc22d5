"""Generated sequence tasks with long-range dependencies, seeded by a `torch.Generator`.

Positions are those of the code released with Pascanu, Mikolov & Bengio (2013, arXiv 1211.5063):
"[.1T, .2T)" is `T // 10` whole positions from `T // 10` on. Tensors live on the generator's device.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SYMBOLS = 6  # temporal order: A, B, and the distractors c, d, e, f


class Chance(NamedTuple):
    """The scores of a predictor that ignores its input: what a diverged run scores."""

    error: float
    loss: float


def class_chance(classes: int) -> Chance:
    """Uniform guessing: error 1 - 1/classes, cross-entropy ln(classes) nats.

    >>> class_chance(4)
    Chance(error=0.75, loss=1.386...)
    """
    return Chance(1 - 1 / classes, math.log(classes))


ADDING_TOLERANCE = 0.04  # Pascanu: a sequence is wrong if its squared error is larger
# The mean of two U[0, 1) numbers has variance 1/24; |mean - .5| > .2 has probability .36.
ADDING_CHANCE = Chance(error=0.36, loss=1 / 24)


def temporal_order(
    batch: int, length: int, generator: torch.Generator, *, three: bool = False
) -> tuple[Tensor, Tensor]:
    """In which order did the relevant symbols come? Pascanu et al. (2013), section 4.1.1.

    A or B (channels 0, 1) stands once in [.1T, .2T) and once in [.5T, .6T); every other position
    holds a distractor (channels 2-5). `three=True` is the 3-bit task: [.1T, .2T), [.3T, .4T),
    [.6T, .7T). Bit i of the class says whether the i-th relevant symbol is B.

    Returns: inputs [B, T, 6], one-hot float32; classes [B], int64, below 4 (8 with `three`).
    Chance: `class_chance(4)`, `class_chance(8)`.
    """
    tenth = _tenth(length)
    device = generator.device
    symbols = torch.randint(2, SYMBOLS, (batch, length), generator=generator, device=device)
    classes = torch.zeros(batch, dtype=torch.int64, device=device)
    for bit, start in enumerate((1, 3, 6) if three else (1, 5)):
        positions = _positions(batch, length * start // 10, tenth, generator)
        values = torch.randint(2, (batch, 1), generator=generator, device=device)
        symbols.scatter_(1, positions, values)
        classes += values.squeeze(1) << bit
    return torch.nn.functional.one_hot(symbols, SYMBOLS).float(), classes


def adding(batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The mean of the two marked numbers; Pascanu et al. (2013), section 4.1.2.

    Channel 0 marks one position in [0, .1T) and one in [.1T, .5T); channel 1 holds U[0, 1)
    numbers. Every sequence has exactly `length` steps; for the released code's random length
    pass a new one from [T, 1.1T) for every batch.

    Returns: inputs [B, T, 2], targets [B], float32.
    Chance: `ADDING_CHANCE`, predicting 1/2 always; a sequence is wrong if its squared error
    exceeds `ADDING_TOLERANCE`.
    """
    tenth = _tenth(length)
    device = generator.device
    values = torch.rand(batch, length, generator=generator, device=device)
    early = _positions(batch, 0, tenth, generator)
    late = _positions(batch, tenth, length * 4 // 10, generator)
    positions = torch.cat([early, late], dim=1)
    marks = torch.zeros_like(values).scatter_(1, positions, 1.0)
    return torch.stack([marks, values], dim=-1), values.gather(1, positions).mean(dim=1)


def _tenth(length: int) -> int:
    if length < 10:
        raise ValueError(f"length must be at least 10, so that a tenth is a position: {length}")
    return length // 10


def _positions(batch: int, start: int, count: int, generator: torch.Generator) -> Tensor:
    """One position of `count` from `start` on for every sequence, [B, 1]."""
    shape, device = (batch, 1), generator.device
    return start + torch.randint(count, shape, generator=generator, device=device)
