"""Small networks of plain operations, which ``torch.vmap`` can train by the dozen.

Shapes: B windows or images, T steps, V symbols, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab.models.cells import lstm_step


class SmallLSTM(nn.Module):
    """A character language model, ``[B,T]`` ids -> ``[B,T,V]`` logits: embedding, LSTM, readout.

    As ``CharLSTM`` with one layer, but for one bias and the order of the gates. Weights from
    U(-1/sqrt(D), 1/sqrt(D)), the embedding from N(0, 1), biases 0.
    """

    def __init__(self, vocab: int, width: int, *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: (2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(width)  # noqa: E731
        self.embed = nn.Parameter(torch.randn(vocab, width, generator=generator))
        self.w_in = nn.Parameter(draw(width, 4 * width))
        self.w_rec = nn.Parameter(draw(width, 4 * width))
        self.bias = nn.Parameter(torch.zeros(4 * width))
        self.w_out = nn.Parameter(draw(width, vocab))
        self.bias_out = nn.Parameter(torch.zeros(vocab))

    def forward(self, ids: Tensor) -> Tensor:
        """Predict every next character; the state starts at zero in each window."""
        driven = F.embedding(ids, self.embed @ self.w_in) + self.bias
        hidden = cell = driven.new_zeros(*driven.shape[:-2], self.w_rec.shape[0])
        states = []
        for step in driven.unbind(-2):
            hidden, cell = lstm_step(step + hidden @ self.w_rec, cell)
            states.append(hidden)
        return torch.stack(states, -2) @ self.w_out + self.bias_out


class SmallTransformer(nn.Module):
    """A pre-LN transformer, ``[B,T]`` ids -> ``[B,T,V]`` logits: T <= ``window``, one head a block.

    Readout tied to the embedding. Weights from N(0, 0.3/D), which is 0.02^2 at width 768 (Radford
    2019); those that end a residual branch from N(0, 0.3/D / (2 layers)). Without ``normalised``
    there is no layer norm anywhere.
    """

    def __init__(
        self, vocab: int, width: int, *, layers: int, window: int, normalised: bool, seed: int
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        std = math.sqrt(0.3 / width)
        draw = lambda *shape, std=std: nn.Parameter(  # noqa: E731
            std * torch.randn(*shape, generator=generator)
        )
        self.normalised = normalised
        self.embed, self.position = draw(vocab, width), draw(window, width)
        ends = std / math.sqrt(2 * layers)
        names = ("query_key_value", "out", "up", "down")
        sizes = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
        self.blocks = nn.ModuleList(
            nn.ParameterDict(
                {
                    name: draw(*size, std=ends if name in ("out", "down") else std)
                    for name, size in zip(names, sizes, strict=True)
                }
            )
            for _ in range(layers)
        )
        if normalised:
            self.gains = nn.Parameter(torch.ones(2 * layers + 1, width))

    def forward(self, ids: Tensor) -> Tensor:
        """Predict every next symbol from those up to it."""
        steps = ids.shape[-1]
        future = torch.ones(steps, steps, dtype=torch.bool, device=ids.device).triu(1)
        x = F.embedding(ids, self.embed) + self.position[:steps]
        blocks: Iterable[Any] = self.blocks
        for i, block in enumerate(blocks):
            q, k, v = (self._norm(x, 2 * i) @ block["query_key_value"]).chunk(3, -1)
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            x = x + scores.masked_fill(future, -math.inf).softmax(-1) @ v @ block["out"]
            x = x + F.gelu(self._norm(x, 2 * i + 1) @ block["up"]) @ block["down"]
        return self._norm(x, -1) @ self.embed.T

    def _norm(self, x: Tensor, place: int) -> Tensor:
        if not self.normalised:
            return x
        return F.layer_norm(x, x.shape[-1:]) * self.gains[place]


class SmallMLP(nn.Module):
    """A classifier with ReLU, ``[B,inputs] -> [B,classes]``; He's weights, biases 0."""

    def __init__(self, inputs: int, width: int, classes: int, *, hidden: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [inputs, *[width] * hidden, classes]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim == 1:
                    parameter.zero_()
                else:
                    std = math.sqrt(2 / parameter.shape[1])
                    parameter.normal_(0.0, std, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images that are given as rows."""
        *hidden, last = self.layers
        for layer in hidden:
            x = layer(x).relu()
        logits: Tensor = last(x)
        return logits
