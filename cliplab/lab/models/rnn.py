"""Recurrent networks. Shapes: B sequences, T steps, I inputs, H hidden units, O outputs."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from cliplab.lab.models.cells import lstm_step, sparse

Init = Literal["tanh", "smart", "sigmoid"]


class TanhRNN(nn.Module):
    """``h_t = f(x_t W_in + h_{t-1} W_rec + b)``, read out at the last step: ``[B,T,I] -> [B,O]``.

    ``init`` as Pascanu, Mikolov, Bengio 2013: "tanh" draws all weights from N(0, 0.1^2); "smart"
    draws W_in and W_out from N(0, 0.01^2) and a W_rec of 15 non-zero entries a unit, rescaled to
    spectral radius 0.95; "sigmoid" draws from N(0, 0.01^2) and takes f = sigmoid instead of tanh.
    Written with plain operations, so that ``torch.vmap`` can train many at once.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, init: Init, seed: int) -> None:
        super().__init__()
        if init not in ("tanh", "smart", "sigmoid"):
            raise ValueError(f"init must be tanh, smart or sigmoid, got {init!r}")
        generator = torch.Generator().manual_seed(seed)
        scale = 0.1 if init == "tanh" else 0.01
        draw = lambda *shape: scale * torch.randn(*shape, generator=generator)  # noqa: E731
        self.squash = torch.sigmoid if init == "sigmoid" else torch.tanh
        self.w_in = nn.Parameter(draw(inputs, hidden))
        self.w_rec = nn.Parameter(
            _smart_recurrence(hidden, generator) if init == "smart" else draw(hidden, hidden)
        )
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.w_out = nn.Parameter(draw(hidden, outputs))
        self.bias_out = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Run over all T steps and read out the last hidden state."""
        first, *later = (x @ self.w_in + self.bias).unbind(1)
        hidden = self.squash(first)
        for driven in later:
            hidden = self.squash(torch.addmm(driven, hidden, self.w_rec))
        return torch.addmm(self.bias_out, hidden, self.w_out)


class LastStepLSTM(nn.Module):
    """An LSTM read out at the last step: ``[B,T,I] -> [B,O]``.

    Weights are drawn from U(-1/sqrt(H), 1/sqrt(H)), as by ``nn.LSTM``; the forget gate's bias is 1,
    the others 0. Written with plain operations, so that ``torch.vmap`` can train many at once.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: (2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(hidden)  # noqa: E731
        self.w_in = nn.Parameter(draw(inputs, 4 * hidden))
        self.w_rec = nn.Parameter(draw(hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.zeros(4 * hidden))
        self.w_out = nn.Parameter(draw(hidden, outputs))
        self.bias_out = nn.Parameter(torch.zeros(outputs))
        with torch.no_grad():
            self.bias[hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Run over all T steps and read out the last hidden state."""
        first, *later = (x @ self.w_in + self.bias).unbind(1)
        hidden, cell = lstm_step(first, first.new_zeros(first.shape[0], self.w_out.shape[0]))
        for driven in later:
            hidden, cell = lstm_step(torch.addmm(driven, hidden, self.w_rec), cell)
        return torch.addmm(self.bias_out, hidden, self.w_out)


class CharLSTM(nn.Module):
    """A character language model, ``[B,T]`` ids -> ``[B,T,V]`` logits: embedding, LSTM, readout."""

    def __init__(self, vocab: int, width: int, *, layers: int = 1, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(vocab, width)
            self.lstm = nn.LSTM(width, width, num_layers=layers, batch_first=True)
            self.readout = nn.Linear(width, vocab)

    def forward(self, ids: Tensor) -> Tensor:
        """Predict every next character; the state starts at zero in each window."""
        return self.readout(self.lstm(self.embed(ids))[0])


def _smart_recurrence(hidden: int, generator: torch.Generator) -> Tensor:
    weight = sparse(hidden, hidden, 15, generator, axis=0)
    return weight * (0.95 / torch.linalg.eigvals(weight).abs().max())
