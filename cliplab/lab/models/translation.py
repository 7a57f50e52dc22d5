"""Translators. Shapes: B sentences, S positions of the source, T of the target, V symbols, D width.

Both encode a source into a `Memory` and decode target symbols from it; id 0 is padding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab.models.text import Block

PAD = 0  # fills the ends of shorter sentences; no state of a real symbol depends on it


class Memory(NamedTuple):
    """An encoded source: states ``[B,S,D]`` and where they stand for a symbol, ``[B,S]`` bool."""

    states: Tensor
    real: Tensor

    @property
    def mask(self) -> Tensor:
        """For attention over this memory: ``[B,1,1,S]``."""
        return self.real[:, None, None, :]


class LSTMTranslator(nn.Module):
    """Encoder-decoder LSTM with attention (Luong 2015, "general" score, no input feeding).

    Encoder states h_s, decoder states d_t: ``a = softmax(d_t W h_s)``, context ``c = sum a h_s``,
    logits ``= V tanh(U [c; d_t])``. The decoder starts from ``tanh(B h_last)``, h_last the state at
    the source's last symbol: padding after it changes nothing. Weights from U(-a, a), biases 0;
    a = 0.08 sqrt(1000 / D) is 0.08 for the 1000 units of Sutskever 2014 and their gain for others.
    """

    def __init__(
        self, source_vocab: int, target_vocab: int, width: int, *, layers: int = 1, seed: int
    ) -> None:
        super().__init__()
        self.layers = layers
        self.source, self.target = (
            nn.Embedding(source_vocab, width),
            nn.Embedding(target_vocab, width),
        )
        self.encoder = nn.LSTM(width, width, num_layers=layers, batch_first=True)
        self.decoder = nn.LSTM(width, width, num_layers=layers, batch_first=True)
        self.bridge = nn.Linear(width, 2 * layers * width)
        self.score = nn.Linear(width, width, bias=False)
        self.combine, self.readout = nn.Linear(2 * width, width), nn.Linear(width, target_vocab)
        generator, bound = torch.Generator().manual_seed(seed), 0.08 * math.sqrt(1000 / width)
        with torch.no_grad():
            for p in self.parameters():
                p.zero_() if p.ndim == 1 else p.uniform_(-bound, bound, generator=generator)

    def encode(self, source: Tensor) -> Memory:
        """Read sources ``[B,S]``, padded at the end."""
        return Memory(self.encoder(self.source(source))[0], source != PAD)

    def decode(self, target: Tensor, memory: Memory) -> Tensor:
        """Logits ``[B,T,V]`` of the symbols after each of ``target`` ``[B,T]``."""
        rows = torch.arange(len(memory.states), device=target.device)
        last = memory.states[rows, memory.real.sum(1) - 1]
        start = self.bridge(last).tanh().view(len(last), 2, self.layers, -1)
        hidden, cell = start.permute(1, 2, 0, 3).contiguous().unbind()
        states, _ = self.decoder(self.target(target), (hidden, cell))
        context = F.scaled_dot_product_attention(
            self.score(states),
            memory.states,
            memory.states,
            attn_mask=memory.real[:, None],
            scale=1.0,
        )
        return self.readout(self.combine(torch.cat((context, states), -1)).tanh())

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Teacher forcing: ``[B,S]``, ``[B,T]`` -> ``[B,T,V]``."""
        return self.decode(target, self.encode(source))


class TransformerTranslator(nn.Module):
    """The transformer of Vaswani 2017, post-LN: ``[B,S]``, ``[B,T]`` -> ``[B,T,V]``.

    Embeddings times sqrt(D) plus sinusoids; readout tied to the target embedding; matrices from
    Xavier's uniform, embeddings from N(0, 1/D), biases 0.
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        width: int,
        *,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        seed: int,
    ) -> None:
        super().__init__()
        self.source, self.target = (
            nn.Embedding(source_vocab, width),
            nn.Embedding(target_vocab, width),
        )
        self.encoder = nn.ModuleList(
            Block(width, heads, pre_norm=False, dropout=dropout) for _ in range(layers)
        )
        self.decoder = nn.ModuleList(
            Block(width, heads, pre_norm=False, cross=True, dropout=dropout) for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.ndim == 1:
                    p.fill_(float("norm" in name and name.endswith("weight")))
                elif name.startswith(("source", "target")):
                    p.normal_(0.0, width**-0.5, generator=generator)
                else:
                    nn.init.xavier_uniform_(p, generator=generator)

    def encode(self, source: Tensor) -> Memory:
        """Read sources ``[B,S]``, padded at the end."""
        x, real = self._embed(self.source, source), source != PAD
        for block in self.encoder:
            x = block(x, mask=real[:, None, None, :])
        return Memory(x, real)

    def decode(self, target: Tensor, memory: Memory) -> Tensor:
        """Logits ``[B,T,V]`` of the symbols after each of ``target`` ``[B,T]``."""
        x = self._embed(self.target, target)
        for block in self.decoder:
            x = block(x, memory.states, memory_mask=memory.mask, causal=True)
        return F.linear(x, self.target.weight)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Teacher forcing: ``[B,S]``, ``[B,T]`` -> ``[B,T,V]``."""
        return self.decode(target, self.encode(source))

    def _embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        width = table.embedding_dim
        position = torch.arange(ids.shape[-1], device=ids.device)[:, None]
        rate = 10_000 ** (torch.arange(0, width, 2, device=ids.device) / width)
        waves = torch.stack(((position / rate).sin(), (position / rate).cos()), -1).flatten(-2)
        return self.dropout(table(ids) * math.sqrt(width) + waves)
