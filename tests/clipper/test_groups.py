"""Groups of parameters, each with its own threshold, or none."""

import math

import pytest
import torch
from making import with_gradients
from torch import nn

from cliplab import Clipper, Fixed, MovingAverage, Switch, WeightRatio


def test_groups_have_their_own_thresholds_or_none():
    a, b, c = with_gradients(
        torch.tensor([3.0, 4.0]), torch.tensor([30.0, 40.0]), torch.tensor([300.0])
    )
    groups = [
        {"params": [b], "threshold": 10.0, "name": "embedding"},
        {"params": [a]},
        {"params": [c], "clip": False},
    ]
    clipper = Clipper(groups, 1.0)
    clipper.clip()
    assert a.grad.norm().item() == pytest.approx(1.0)
    assert b.grad.norm().item() == pytest.approx(10.0)
    assert c.grad.tolist() == [300.0]
    assert clipper.history.labels == ["all", "embedding"]
    assert clipper.history.norm_before.tolist() == [[5.0, 50.0]]


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit"])
def test_a_policy_of_a_group_learns_from_that_group_alone(scope):
    a, b = with_gradients(torch.tensor([3.0, 4.0]), torch.tensor([30.0, 40.0]))
    shared = MovingAverage(1.0, window=3, warmup=1)
    groups = [{"params": [a]}, {"params": [b], "threshold": shared}]
    clipper = Clipper(groups, shared, scope=scope)
    separate = [Clipper([p], shared, scope=scope) for p in (a, b)]
    for step in range(4):
        for p, size in ((a, 5.0), (b, 50.0)):
            p.grad = torch.tensor([0.6, 0.8]) * size * (1 + step)
        expected = [c.clip().threshold.reshape(-1) for c in separate]
        for p, size in ((a, 5.0), (b, 50.0)):
            p.grad = torch.tensor([0.6, 0.8]) * size * (1 + step)
        found = clipper.clip().threshold
        torch.testing.assert_close(found, torch.cat(expected))


def test_group_scope_has_a_limit_for_each_group():
    a, b = with_gradients(torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]))
    c = with_gradients(torch.tensor([6.0, 8.0]))
    report = Clipper([{"params": [a, b]}, {"params": c}], 2.0, scope="group").clip()
    torch.testing.assert_close(report.norm_before, torch.tensor([math.sqrt(25.25), 10.0]))
    torch.testing.assert_close(c[0].grad.norm(), torch.tensor(2.0))


def test_excluded_names_are_neither_measured_nor_clipped():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model(torch.full((1, 2), 100.0)).sum().mul(100).backward()
    head = model[1].weight.grad.clone()
    report = Clipper(model, 1e-3, exclude=["1.*"]).clip()
    assert torch.equal(model[1].weight.grad, head)
    raw = torch.cat([p.grad.flatten() for p in model[0].parameters()])
    assert raw.norm().item() == pytest.approx(1e-3, rel=1e-5)
    assert report.norm_before > 1e-3


def test_members_may_have_policies_that_need_weights():
    weights = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
    weights.grad = torch.ones(2, 2)
    policy = Switch([([True, False], WeightRatio(0.1)), ([False, True], Fixed(0.2))])
    Clipper([weights], policy, scope="member").clip()
    torch.testing.assert_close(weights.grad.norm(dim=1), torch.tensor([0.5, 0.2]))
