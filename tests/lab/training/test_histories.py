"""Histories of an ensemble's members."""

import torch
from torch import nn

from cliplab.lab import Ensemble
from cliplab.lab.training.histories import histories


def test_each_member_has_its_own_and_one_that_ended_stays_without_a_norm():
    ensemble = Ensemble(lambda seed: nn.Linear(3, 1), {"none": None, "norm": 0.1}, [0])
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.1)
    for step in range(4):
        ensemble.zero_grad()
        losses = ensemble(torch.ones(1, 2, 3)).square().mean((1, 2))
        losses = losses * torch.tensor([torch.inf if step == 2 else 1.0, 1.0])
        losses.sum().backward()
        ensemble.clip()
        ensemble.step(optimizer, losses)
    lrs, updates = torch.full((4, 2), 0.1), torch.arange(8.0).view(4, 2)
    unclipped, clipped = histories(ensemble, lrs, updates)
    assert unclipped.norm_before.isnan().tolist() == [False, False, True, True]
    assert torch.equal(clipped.norm_before, ensemble.clipper.history.norm_before[:, 1])
    assert clipped.clipped.any()
    assert not unclipped.clipped[:2].any()
    assert clipped.update_norm.tolist() == [1, 3, 5, 7]
    assert clipped.lr.tolist() == lrs[:, 1].double().tolist()
