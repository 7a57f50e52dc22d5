"""Bidirectional LSTMs with CTC that clip derivatives inside BPTT; phone error rate.

Shapes: M members, B utterances, T frames, F features, H units, C symbols (0 is CTC's blank).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab.models.cells import lstm_step
from cliplab.lab.training.ensemble import Ensemble

Observer = Callable[[int, int, Tensor], None]  # layer, step, dL/da before it is clipped


class BiLSTM(nn.Module):
    """Bidirectional LSTM and softmax: ``[B,T,F]`` frames -> ``[B,T,C]`` log-probabilities.

    ``a = x W_in + h W_rec + b`` and `lstm_step` in either direction; the next layer reads both.
    Weights start uniform in ``±1/sqrt(H)``, as in ``nn.LSTM``, whose outputs and gradients these
    are. The first axis of ``w_in0 [2,F,4H]``, ``w_rec0 [2,H,4H]``, ``bias0 [2,1,4H]`` (and 1, 2,
    ...) is the direction.
    """

    def __init__(
        self, features: int, width: int, symbols: int, *, layers: int = 1, seed: int
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers = layers

        def add(name: str, *shape: int) -> None:
            weight = (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(width)
            self.register_parameter(name, nn.Parameter(weight))

        for layer in range(layers):
            add(f"w_in{layer}", 2, 2 * width if layer else features, 4 * width)
            add(f"w_rec{layer}", 2, width, 4 * width)
            add(f"bias{layer}", 2, 1, 4 * width)
        add("w_out", 2 * width, symbols)
        add("b_out", 1, symbols)

    def forward(
        self,
        frames: Tensor,
        lengths: Tensor,
        limit: float | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """Frames beyond an utterance's length are ignored; see `log_probs` for the rest."""
        weights = {name: weight[None] for name, weight in self.named_parameters()}
        limits = None if limit is None else torch.tensor([limit])
        return log_probs(weights, self.layers, frames[None], lengths[None], limits, observe)[0]


class BiLSTMs(Ensemble):
    """Arms x seeds of `BiLSTM` in one program of batched products."""

    def log_probs(
        self,
        frames: Tensor,
        lengths: Tensor,
        limits: Tensor | None = None,
        observe: Observer | None = None,
    ) -> Tensor:
        """Give every member the data of its seed: ``[seeds,B,T,F]`` -> ``[M,B,T,C]``."""
        weights = self.weights
        layers = sum(name.startswith("w_in") for name in weights)
        frames, lengths = self.for_members(frames), self.for_members(lengths)
        return log_probs(weights, layers, frames, lengths, limits, observe)


def log_probs(
    weights: Mapping[str, Tensor],
    layers: int,
    frames: Tensor,
    lengths: Tensor,
    limits: Tensor | None = None,
    observe: Observer | None = None,
) -> Tensor:
    """Run stacked networks: frames ``[M,B,T,F]``, lengths ``[M,B]`` -> ``[M,B,T,C]``.

    Member m's ``dL/da`` of every LSTM pre-activation is clamped to ``limits[m]`` ``[M]`` in size at
    every step of backpropagation through time (Graves 2013, arXiv:1308.0850): what
    ``clip_activation_grad_`` does with one limit for all. Infinity, or no limits, leaves it alone.
    ``observe(layer, step, gradient)`` sees it first, ``[2M,B,4H]``, with the directions of a
    member side by side; step counts from the end at which a direction starts.
    """
    steps = torch.arange(frames.shape[2], device=frames.device)
    last = lengths[..., None] - 1
    turned = torch.where(steps <= last, last - steps, steps)  # padding stays behind the utterance
    bounds = None if limits is None else limits.repeat_interleave(2)[:, None, None]
    hidden = frames
    for layer in range(layers):
        w_in, w_rec, bias = (weights[f"{name}{layer}"] for name in ("w_in", "w_rec", "bias"))
        both = torch.stack([hidden, _turn(hidden, turned)], 1)
        members, _, batch, time, width = both.shape
        driven = torch.baddbmm(
            bias.flatten(0, 1), both.view(2 * members, batch * time, width), w_in.flatten(0, 1)
        )
        driven = driven.view(2 * members, batch, time, -1).permute(2, 0, 1, 3).contiguous()
        seen = None if observe is None else _for_layer(observe, layer)
        outputs = _lstm(driven, w_rec.flatten(0, 1), bounds, seen)
        forwards, backwards = outputs.view(time, members, 2, batch, -1).permute(2, 1, 3, 0, 4)
        hidden = torch.cat([forwards, _turn(backwards, turned)], -1)
    scores = torch.matmul(hidden, weights["w_out"][:, None]) + weights["b_out"][:, None]
    return scores.log_softmax(-1)


def _lstm(
    driven: Tensor,
    w_rec: Tensor,
    bounds: Tensor | None,
    observe: Callable[[int, Tensor], None] | None,
) -> Tensor:
    """The recurrence: driven ``[T,G,B,4H]``, bounds ``[G,1,1]`` -> hidden states ``[T,G,B,H]``."""
    width = w_rec.shape[-2]
    hidden = cell = driven.new_zeros(*driven.shape[1:3], width)
    states = []
    for step, drive in enumerate(driven.unbind(0)):
        a = torch.baddbmm(drive, hidden, w_rec)
        if observe is not None and a.requires_grad:  # hooks run in order: before the clamp
            a.register_hook(lambda gradient, step=step: observe(step, gradient))
        if bounds is not None and a.requires_grad:
            a.register_hook(lambda gradient: gradient.clamp(-bounds, bounds))
        hidden, cell = lstm_step(a, cell)
        states.append(hidden)
    return torch.stack(states)


def _turn(x: Tensor, turned: Tensor) -> Tensor:
    """Reverse every utterance within its length: ``[M,B,T,...]`` by ``turned [M,B,T]``."""
    return x.gather(2, turned[..., None].expand(x.shape))


def _for_layer(observe: Observer, layer: int) -> Callable[[int, Tensor], None]:
    return lambda step, gradient: observe(layer, step, gradient)


def ctc_losses(log_probs: Tensor, lengths: Tensor, phones: Tensor, counts: Tensor) -> Tensor:
    """Mean over the utterances of -ln p(phones) / count: ``[M,B,T,C]`` and labels -> ``[M]``."""
    members, batch = log_probs.shape[:2]
    losses = F.ctc_loss(
        log_probs.flatten(0, 1).transpose(0, 1),
        phones.flatten(0, 1),
        lengths.flatten(),
        counts.flatten(),
        reduction="none",
    )
    return (losses / counts.flatten()).view(members, batch).mean(1)


def greedy_decode(log_probs: Tensor, lengths: Tensor) -> list[list[int]]:
    """Best path of each utterance, repeats merged, blanks dropped: ``[N,T,C]`` -> N lists."""
    best = log_probs.argmax(-1)
    decoded = []
    for path, length in zip(best, lengths.tolist(), strict=True):
        merged = path[:length].unique_consecutive()
        decoded.append(merged[merged != 0].tolist())
    return decoded


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Fewest insertions, deletions and substitutions that turn one into the other (Levenshtein).

    >>> edit_distance([1, 2, 3], [2, 3, 4])
    2
    """
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def phone_error_rate(
    decoded: Sequence[Sequence[int]], references: Sequence[Sequence[int]]
) -> float:
    """Edits per phone of the references, at most 1: that is what saying nothing scores."""
    edits = sum(edit_distance(a, b) for a, b in zip(decoded, references, strict=True))
    return min(1.0, edits / sum(map(len, references)))
