"""Translating with any model that encodes and decodes: greedily, or with a beam.

Shapes: B sentences, S positions of the source, T of the translation, V symbols, K hypotheses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cliplab.lab.models.translation import PAD, Memory


class Translator(Protocol):
    """What decoding needs: ``[B,S]`` -> memory, and ``[B,T]``, memory -> logits ``[B,T,V]``."""

    def encode(self, source: Tensor) -> Memory:
        """Read the sources once."""

    def decode(self, target: Tensor, memory: Memory) -> Tensor:
        """Score the symbols after each of the target's."""


class Translations(NamedTuple):
    """``ids`` ``[B,T]`` up to and with the end symbol, 0 after it; ``log_probs`` ``[B]``, summed.

    A translation that reached the limit has no end symbol, and its log-probability none of its.
    """

    ids: Tensor
    log_probs: Tensor


@torch.no_grad()
def greedy(
    model: Translator,
    source: Tensor,
    *,
    limit: int,
    begin: int = 1,
    end: int = 2,
    never: Sequence[int] = (),
) -> Translations:
    """Take the most probable symbol at every step until the end symbol, at most `limit` symbols.

    Padding, `begin` and the symbols in `never` are not taken; log-probabilities are the model's
    own, over all symbols.
    """
    return beam(model, source, size=1, limit=limit, begin=begin, end=end, never=never)


@torch.no_grad()
def beam(
    model: Translator,
    source: Tensor,
    *,
    size: int,
    limit: int,
    begin: int = 1,
    end: int = 2,
    never: Sequence[int] = (),
    alpha: float = 0.0,
) -> Translations:
    r"""Beam search: of all one-symbol extensions of `size` hypotheses keep the `size` best.

    A hypothesis y is as good as ``log p(y | x) / ((5 + |y|) / 6)^alpha`` (Wu 2016; alpha = 0: its
    log-probability), |y| counting the end symbol. Finished hypotheses stay in the beam as they are
    until better ones push them out; the search ends when all are finished, or at `limit` symbols.
    Every step reads the prefixes anew: quadratic in their length, and independent of the model.
    """
    if size < 1 or limit < 1:
        raise ValueError(f"size and limit must be at least 1, got {size} and {limit}")
    memory = model.encode(source)
    memory = Memory(*(part.repeat_interleave(size, 0) for part in memory))
    count, device = len(source), source.device
    ids = torch.full((count, size, 1), begin, device=device)
    total = torch.zeros(count, size, device=device)
    total[:, 1:] = -torch.inf  # all start alike: only the first of them counts
    lengths = torch.zeros(count, size, dtype=torch.long, device=device)
    done = torch.zeros(count, size, dtype=torch.bool, device=device)
    for _ in range(limit):
        log_probs = model.decode(ids.flatten(0, 1), memory)[:, -1].log_softmax(-1)
        log_probs[:, [PAD, begin, *never]] = -torch.inf
        log_probs = log_probs.view(count, size, -1)
        log_probs = log_probs.masked_fill(done[..., None], -torch.inf)
        log_probs[..., PAD] = log_probs[..., PAD].masked_fill(done, 0.0)  # it stays as it is
        extended = total[..., None] + log_probs
        longer = (lengths + ~done)[..., None]
        best = (extended / ((5 + longer) / 6) ** alpha).flatten(1).topk(size)[1]
        parent, symbol = best // extended.shape[-1], best % extended.shape[-1]
        total = extended.flatten(1).gather(1, best)
        lengths, done = longer[..., 0].gather(1, parent), done.gather(1, parent) | (symbol == end)
        kept = ids.gather(1, parent[..., None].expand(-1, -1, ids.shape[-1]))
        ids = torch.cat((kept, symbol[..., None]), -1)
        if bool(done.all()):
            break
    first = (total / ((5 + lengths) / 6) ** alpha).argmax(1)[:, None]
    chosen = ids.gather(1, first[..., None].expand(-1, -1, ids.shape[-1]))[:, 0, 1:]
    return Translations(chosen, total.gather(1, first)[:, 0])
