"""A character CNN and a transformer. Shapes: B texts, T positions, V symbols, D width.

No model has buffers: all of its state are parameters, so that `Ensemble` can stack it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CharCNN(nn.Module):
    """Character CNN of Zhang, Zhao & LeCun 2015: ``[B,T]`` ids -> ``[B,classes]`` logits.

    An id k is the one-hot column of the k-th of ``alphabet`` characters; 0, and an id beyond the
    alphabet, is a column of zeros. Six convolutions with kernels 7, 7, 3, 3, 3, 3, each with a
    ReLU, max-pooling by 3 after the first, second and last; two hidden layers with dropout. Weights
    from N(0, std^2), biases and the weights that read characters (as many at any width) from
    N(0, input_std^2). The paper: length 1014, features 256, hidden 1024, 0.05 (small), or 1024,
    2048, 0.02 (large).
    ``std = 0.05 (256 / features)^0.5`` keeps the gain of the small network's layers.

    Source: train/config.lua and train/model.lua of github.com/zhangxiangxiao/Crepe.
    """

    def __init__(
        self,
        alphabet: int,
        classes: int,
        *,
        length: int = 1014,
        features: int = 256,
        hidden: int = 1024,
        std: float = 0.05,
        input_std: float = 0.05,
        dropout: float = 0.5,
        seed: int,
    ) -> None:
        super().__init__()
        self.read = nn.Conv1d(alphabet, features, 7)
        layers: list[nn.Module] = [nn.ReLU(), nn.MaxPool1d(3)]
        left = (length - 6) // 3
        for kernel, pool in ((7, 3), (3, 1), (3, 1), (3, 1), (3, 3)):
            layers += [nn.Conv1d(features, features, kernel), nn.ReLU()]
            layers += [nn.MaxPool1d(pool)] if pool > 1 else []
            left = (left - kernel + 1) // pool
        if left < 1:
            raise ValueError(f"length must be at least 123 for six convolutions, got {length}")
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            *(nn.Linear(features * left, hidden), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(hidden, classes),
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in self.named_parameters():
                reads_input = p.ndim == 1 or name == "read.weight"
                p.normal_(0.0, input_std if reads_input else std, generator=generator)

    def forward(self, ids: Tensor) -> Tensor:
        """Classify texts of exactly ``length`` ids."""
        alphabet = torch.arange(self.read.in_channels, device=ids.device, dtype=ids.dtype) + 1
        columns = (ids.unsqueeze(-2) == alphabet.unsqueeze(-1)).to(self.read.weight)
        logits: Tensor = self.classifier(self.features(self.read(columns)).flatten(-2))
        return logits


class Attention(nn.Module):
    """Multi-head attention of ``[B,T,D]`` over a memory ``[B,S,D]``, or over itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width must be a multiple of heads, got {width} and {heads}")
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """``mask`` is True where attention is allowed (it broadcasts to ``[B,heads,T,S]``)."""
        memory = x if memory is None else memory
        q, k, v = (
            project(source).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for project, source in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(mixed.transpose(-2, -3).flatten(-2))


class Block(nn.Module):
    """Self-attention, attention over a memory (``cross``), two-layer network: each with a residual.

    ``x + f(norm(x))`` where ``pre_norm`` (Radford 2019, GELU), ``norm(x + f(x))`` otherwise
    (Vaswani 2017, ReLU). The hidden layer is four times as wide.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        pre_norm: bool = True,
        cross: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pre_norm, self.dropout = pre_norm, nn.Dropout(dropout)
        self.attend, self.attend_norm = Attention(width, heads), nn.LayerNorm(width)
        if cross:
            self.cross, self.cross_norm = Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU() if pre_norm else nn.ReLU(),
            nn.Linear(4 * width, width),
        )
        self.mlp_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """``[B,T,D] -> [B,T,D]``; masks as in `Attention`."""
        x = self._add(x, self.attend_norm, lambda y: self.attend(y, mask=mask, causal=causal))
        if memory is not None:
            x = self._add(x, self.cross_norm, lambda y: self.cross(y, memory, mask=memory_mask))
        return self._add(x, self.mlp_norm, self.mlp)

    def _add(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(part(norm(x)))
        return norm(x + self.dropout(part(x)))


class TransformerLM(nn.Module):
    """A pre-LN transformer language model: ``[B,T]`` ids -> ``[B,T,V]`` logits, T <= ``window``.

    Learned positions; readout tied to the embedding; weights from N(0, 0.02^2), those that end a
    residual branch from N(0, 0.02^2 / (2 layers)), biases 0 (Radford 2019, as nanoGPT).
    """

    def __init__(
        self,
        vocab: int,
        width: int,
        *,
        layers: int,
        heads: int,
        window: int,
        dropout: float = 0.0,
        seed: int,
    ) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocab, width), nn.Embedding(window, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout=dropout) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.ndim == 1:
                    p.fill_(float("norm" in name and name.endswith("weight")))
                else:
                    ends = name.endswith(("attend.out.weight", "mlp.2.weight"))
                    std = 0.02 / math.sqrt(2 * layers) if ends else 0.02
                    p.normal_(0.0, std, generator=generator)

    def forward(self, ids: Tensor) -> Tensor:
        """Predict every next symbol from those up to it."""
        x = self.dropout(self.embed(ids) + self.position.weight[: ids.shape[-1]])
        for block in self.blocks:
            x = block(x, causal=True)
        return F.linear(self.norm(x), self.embed.weight)
