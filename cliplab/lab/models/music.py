"""Predictors of the next frame of a piano roll.

Shapes: B sequences, T frames, N notes, H hidden units; ``...`` stands for an axis of members.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPECTRAL_RADIUS = 0.95


class RollRNN(nn.Module):
    """Hidden states ``h_t = tanh(x_t W_in + h_{t-1} W_rec + b)``, ``[B,T,N] -> [B,T,H]``.

    ``W_in, W_out ~ N(0, 0.1^2)``, ``W_rec ~ N(0, 0.95^2 / H)``: a spectral radius of about 0.95.
    Written with plain operations, so that ``torch.vmap`` can train many at once; read the notes
    out with :func:`note_logits`. Source: Pascanu, Mikolov, Bengio 2013.
    """

    def __init__(self, notes: int, hidden: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        self.w_in = nn.Parameter(0.1 * draw(notes, hidden))
        self.w_rec = nn.Parameter(SPECTRAL_RADIUS / math.sqrt(hidden) * draw(hidden, hidden))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.w_out = nn.Parameter(0.1 * draw(hidden, notes))
        self.bias_out = nn.Parameter(torch.zeros(notes))

    def forward(self, x: Tensor) -> Tensor:
        """The hidden state after every frame; it starts at zero."""
        first, *later = (x @ self.w_in + self.bias).unbind(1)
        states = [torch.tanh(first)]
        for driven in later:
            states.append(torch.tanh(torch.addmm(driven, states[-1], self.w_rec)))
        return torch.stack(states, 1)


class RollLSTM(nn.Module):
    """Hidden states of an ``nn.LSTM``, ``[B,T,N] -> [B,T,H]``; forget-gate bias 1."""

    def __init__(self, notes: int, hidden: int, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lstm = nn.LSTM(notes, hidden, batch_first=True)
            self.w_out = nn.Parameter(0.1 * torch.randn(hidden, notes))
        self.bias_out = nn.Parameter(torch.zeros(notes))
        with torch.no_grad():
            self.lstm.get_parameter("bias_ih_l0")[hidden : 2 * hidden] += 1.0

    def forward(self, x: Tensor) -> Tensor:
        """The hidden state after every frame; it starts at zero."""
        states: Tensor = self.lstm(x)[0]
        return states


def note_logits(hidden: Tensor, w_out: Tensor, bias_out: Tensor) -> Tensor:
    """Log-odds of every note: ``[...,B,T,H], [...,H,N], [...,N] -> [...,B,T,N]``."""
    return hidden @ w_out.unsqueeze(-3) + bias_out[..., None, None, :]


def frame_nll(logits: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
    """Negative log-likelihood of a frame (nats), notes independent: ``[...,B,T,N] -> [...]``.

    Summed over the notes, averaged over the frames that ``mask`` ``[...,B,T]`` marks with 1.
    """
    loss = F.binary_cross_entropy_with_logits(logits, frames, reduction="none").sum(-1)
    return (loss * mask).sum((-1, -2)) / mask.sum((-1, -2))
