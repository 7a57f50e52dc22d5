"""Losses of language models, in nats a symbol, on windows that never change.

Shapes: M members, B windows, T symbols in each, V symbols of the alphabet.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab.data.corpora import windows
from cliplab.lab.training.ensemble import Ensemble

Windows = tuple[Tensor, Tensor]  # inputs and targets, [B,T]


def fixed_windows(
    ids: Tensor, length: int, generator: torch.Generator, count: int = 256
) -> Windows:
    """Draw windows of a text ``ids [N]`` to score on, on its device: ``[count, length]`` each."""
    starts = torch.randint(len(ids) - length, (count,), generator=generator)
    return windows(ids, starts, length)


def nats(model: nn.Module, part: Windows) -> Tensor:
    """Mean cross-entropy of a model ``[B,T] -> [B,T,V]`` on windows."""
    inputs, targets = part
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def member_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of every member: logits ``[M,...,V]``, targets ``[M,...]`` -> ``[M]``."""
    loss = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
    return loss.view(len(targets), -1).mean(1)


def member_scores(ensemble: Ensemble, part: Windows, chance: float) -> Tensor:
    """Loss of every member on the same windows, ``[M]``: chance in those that died or are worse."""
    inputs, targets = (x.expand(len(ensemble.seeds), *x.shape) for x in part)
    with torch.no_grad():
        loss = member_nats(ensemble(inputs), ensemble.for_members(targets))
    return torch.where(ensemble.alive & (loss < chance), loss, chance)
