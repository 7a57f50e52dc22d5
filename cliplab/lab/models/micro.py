"""A character LSTM whose gradient comes in parts: one for each micro-batch, of many models at once.

Shapes: M members, N windows, T symbols in each, V symbols of the alphabet, H units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from cliplab.lab.models.cells import lstm_step

Weights = dict[str, Tensor]


def start_lstm(vocab: int, width: int, seed: int) -> Weights:
    """Weights of one LSTM, drawn as ``nn.LSTM`` does, with a forget gate's bias of 1."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"enter": (vocab, 4 * width), "recur": (width, 4 * width), "leave": (width, vocab)}
    drawn = {name: torch.rand(*shape, generator=generator) for name, shape in shapes.items()}
    weights = {name: (2 * u - 1) / math.sqrt(width) for name, u in drawn.items()}
    bias = torch.zeros(4 * width)
    bias[width : 2 * width] = 1.0
    return {**weights, "bias": bias, "leave_bias": torch.zeros(vocab)}


def run_lstm(weights: Weights, ids: Tensor, probe: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """States ``[M,N,T+1,H]`` and logits ``[M,N,T,V]`` of members ``[M,...]`` on ``ids [M,N,T]``.

    ``probe [M,N,T,4H]`` is added to what the units are driven with.
    """
    members = torch.arange(len(ids)).view(-1, 1, 1)
    driven = weights["enter"][members, ids] + weights["bias"][:, None, None] + probe
    hidden = cell = driven.new_zeros(*ids.shape[:2], weights["recur"].shape[1])
    states = [hidden]
    for x in driven.unbind(2):
        hidden, cell = lstm_step(torch.baddbmm(x, hidden, weights["recur"]), cell)
        states.append(hidden)
    stacked = torch.stack(states, 2)
    logits = torch.bmm(stacked[:, :, 1:].flatten(1, 2), weights["leave"])
    logits = logits + weights["leave_bias"][:, None]
    return stacked, logits.unflatten(1, ids.shape[1:])


def micro_gradients(
    weights: Weights, inputs: Tensor, targets: Tensor, micro: int
) -> tuple[Weights, Tensor]:
    """Gradients of every micro-batch's mean loss, ``[M,micro,...]`` each, and losses ``[M]``.

    The windows ``[M,N,T]`` lie micro-batch by micro-batch. One backward pass finds the derivatives
    d by what drives the units; with h what a layer reads, a micro-batch's gradient is the sum of
    ``h^T d`` over its own windows and steps.
    """
    members, (vocab, gates) = len(inputs), weights["enter"].shape[1:]
    probe = torch.zeros(*inputs.shape, gates, requires_grad=True)
    states, logits = run_lstm(weights, inputs, probe)
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    losses = losses.view(members, -1).mean(1)
    found = torch.autograd.grad(micro * losses.sum(), [probe, logits])

    def parts(x: Tensor) -> Tensor:
        return x.detach().reshape(members * micro, -1, x.shape[-1])

    units, outputs = map(parts, found)
    before, after = parts(states[:, :, :-1]), parts(states[:, :, 1:])
    places = torch.arange(members * micro)[:, None] * vocab + inputs.reshape(members * micro, -1)
    enter = torch.zeros(members * micro * vocab, gates)
    enter.index_add_(0, places.flatten(), units.flatten(0, 1))
    grads = {
        "enter": enter.view(-1, vocab, gates),
        "recur": before.mT @ units,
        "leave": after.mT @ outputs,
        "bias": units.sum(1),
        "leave_bias": outputs.sum(1),
    }
    return {name: g.unflatten(0, (members, micro)) for name, g in grads.items()}, losses.detach()
