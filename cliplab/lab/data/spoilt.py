"""Batches with an error in them: wrong labels, bad batches, a loader that repeats itself.

Shapes: N updates, B examples in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def spoilt(
    inputs: Tensor,
    targets: Tensor,
    error: Mapping[str, Any],
    symbols: int | None,
    classes: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """A run's batches ``[N,B,...]`` with an error in them, and what their losses are weighted by.

    What an error may hold: ``flip``, the share of targets that are drawn at random; ``bad``, the
    share of bad batches (the first is none), in which the loss is ``weight`` times as large, all
    targets are random (``shuffle``) or inputs are ``wild`` times as large, and of ``symbols`` (ids,
    which have no unit) random ones; ``repeat``, how often each batch comes; ``shift``, targets that
    are the inputs; ``inputs``, what all inputs that are no symbols are multiplied by.
    """
    count = len(targets)
    wrong = torch.randint(classes, targets.shape, generator=generator)
    place = torch.rand(targets.shape, generator=generator)
    bad = torch.rand(count, generator=generator) < error.get("bad", 0.0)
    bad[0] = False
    if "repeat" in error:
        again = torch.arange(count) // error["repeat"]
        inputs, targets = inputs[again], targets[again]
    if error.get("shift"):
        targets = inputs
    share = torch.full((count,), float(error.get("flip", 0.0)))
    if error.get("shuffle"):
        share[bad] = 1.0
    targets = torch.where(place < _wide(share, place), wrong, targets)
    if symbols is None:
        factor = torch.where(bad, float(error.get("wild", 1)), float(error.get("inputs", 1)))
        inputs = inputs * _wide(factor, inputs)
    elif "wild" in error:
        noise = torch.randint(symbols, inputs.shape, generator=generator)
        inputs = torch.where(_wide(bad, inputs), noise, inputs)
    return inputs, targets, torch.where(bad, float(error.get("weight", 1)), 1.0)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """One value an update, as it broadcasts over a batch."""
    return values.view(-1, *[1] * (like.ndim - 1))
