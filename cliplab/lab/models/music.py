"""Predictors of the next frame of a piano roll, and Pascanu's regulariser of their gradients.

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


def state_gradients(direct: Tensor, hidden: Tensor, w_rec: Tensor) -> Tensor:
    """All of ``dE/dh_t`` from its direct part (``h_t`` read out at t), both ``[...,B,T,H]``.

    ``dE/dh_t = direct_t + (dE/dh_{t+1} * (1 - h_{t+1}^2)) W_rec^T`` for the states of a tanh RNN.
    No gradient flows through it.
    """
    with torch.no_grad():
        total = [direct[..., -1, :]]
        for t in range(hidden.shape[-2] - 1, 0, -1):
            total.append(direct[..., t - 1, :] + _back(total[-1], hidden[..., t, :], w_rec))
        return torch.stack(total[::-1], -2)


def omega(w_rec: Tensor, hidden: Tensor, gradients: Tensor) -> Tensor:
    """Pascanu's regulariser against vanishing gradients: ``[...,H,H], [...,B,T,H] -> [...]``.

    Mean over steps and sequences of ``(|dE/dh_{t+1} dh_{t+1}/dh_t| / |dE/dh_{t+1}| - 1)^2``, for
    ``gradients = dE/dh`` of :func:`state_gradients`. States and gradients are constants: what is
    left is the immediate derivative with respect to ``W_rec``, as the paper prescribes. A step
    without a gradient (beyond the last frame) does not count.

    The paper sums over the steps and its code averages squared norms; this is the paper's
    summand, averaged, so that its weight does not depend on the length.
    Source: Pascanu, Mikolov, Bengio 2013, section 3.3.
    """
    later, states = gradients[..., 1:, :].detach(), hidden[..., 1:, :].detach()
    size = later.norm(dim=-1)
    counts = size > 1e-10  # the code's bound on the squared norm is 1e-20
    # over all steps of all sequences at once: one product a member
    carried = _back(later.flatten(-3, -2), states.flatten(-3, -2), w_rec).norm(dim=-1)
    ratio = carried.view(size.shape) / torch.where(counts, size, 1.0)
    terms = torch.where(counts, (ratio - 1).square(), 0.0)
    return terms.sum((-1, -2)) / counts.sum((-1, -2)).clamp(min=1)


def _back(gradient: Tensor, state: Tensor, w_rec: Tensor) -> Tensor:
    """``dE/dh_{t+1} dh_{t+1}/dh_t``: ``[...,B,H], [...,B,H], [...,H,H] -> [...,B,H]``."""
    return (gradient * (1 - state.square())) @ w_rec.mT
