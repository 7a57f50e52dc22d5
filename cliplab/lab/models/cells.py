"""What recurrent and deep networks are made of: an LSTM's step, and a sparse start.

Shapes: B batch, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lstm_step(a: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The next hidden state and cell ``[...,B,H]`` of pre-activations ``a [...,B,4H]``.

    With ``a = [a_i, a_f, a_o, a_g]``: ``c = σ(a_f) c + σ(a_i) tanh(a_g)``, ``h = σ(a_o) tanh(c)``.
    Source: Hochreiter, Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    width = cell.shape[-1]
    gates, new = a.split([3 * width, width], -1)
    enter, keep, leave = gates.sigmoid().chunk(3, -1)
    cell = torch.addcmul(keep * cell, enter, new.tanh())
    return leave * cell.tanh(), cell


def sparse(
    units: int, inputs: int, incoming: int, generator: torch.Generator, *, axis: int
) -> Tensor:
    """Weights from N(0, 1) of which every unit keeps ``incoming`` (or all), the others 0.

    The inputs lie along ``axis``: ``[inputs, units]`` for 0, ``[units, inputs]`` for 1.
    Source: Martens 2010.
    """
    shape = (inputs, units) if axis == 0 else (units, inputs)
    weight = torch.randn(shape, generator=generator)
    ranks = torch.rand(shape, generator=generator).argsort(dim=axis).argsort(dim=axis)
    return torch.where(ranks < incoming, weight, 0.0)
