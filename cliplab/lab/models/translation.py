"""Translators. Shapes: B sentences, S positions of the source, T of the target, V symbols, D width.

Both encode a source into a `Memory` and decode target symbols from it; id 0 is padding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab.models.cells import lstm_step
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
    Written with plain operations, so that ``torch.vmap`` can train many at once.
    """

    def __init__(self, source_vocab: int, target_vocab: int, width: int, *, seed: int) -> None:
        super().__init__()
        self.source, self.target = (
            nn.Embedding(source_vocab, width),
            nn.Embedding(target_vocab, width),
        )
        self.encoder, self.decoder = _Layer(width), _Layer(width)
        self.bridge = nn.Linear(width, 2 * width)
        self.score = nn.Linear(width, width, bias=False)
        self.combine, self.readout = nn.Linear(2 * width, width), nn.Linear(width, target_vocab)
        generator, bound = torch.Generator().manual_seed(seed), 0.08 * math.sqrt(1000 / width)
        with torch.no_grad():
            for p in self.parameters():
                p.zero_() if p.ndim == 1 else p.uniform_(-bound, bound, generator=generator)

    def encode(self, source: Tensor) -> Memory:
        """Read sources ``[B,S]``, padded at the end."""
        read = self.source(source)
        zero = torch.zeros_like(read[:, 0])
        return Memory(self.encoder(read, zero, zero), source != PAD)

    def decode(self, target: Tensor, memory: Memory) -> Tensor:
        """Logits ``[B,T,V]`` of the symbols after each of ``target`` ``[B,T]``."""
        last = memory.real & ~F.pad(memory.real[:, 1:], (0, 1))
        start = self.bridge((memory.states * last[..., None]).sum(1)).tanh()
        states = self.decoder(self.target(target), *start.chunk(2, -1))
        scores = self.score(states) @ memory.states.mT
        attention = scores.masked_fill(~memory.real[:, None], -torch.inf).softmax(-1)
        return self.readout(self.combine(torch.cat((attention @ memory.states, states), -1)).tanh())

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Teacher forcing: ``[B,S]``, ``[B,T]`` -> ``[B,T,V]``."""
        return self.decode(target, self.encode(source))


class _Layer(nn.Module):
    """A layer of an LSTM: ``[B,T,D]`` and the first hidden state and cell ``[B,D]`` -> states."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(width, 4 * width)
        self.recur = nn.Linear(width, 4 * width, bias=False)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> Tensor:
        states = []
        for driven in self.enter(x).unbind(1):
            hidden, cell = lstm_step(driven + self.recur(hidden), cell)
            states.append(hidden)
        return torch.stack(states, 1)


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
