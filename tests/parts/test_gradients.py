"""Gradients that are not plain dense fp32 tensors of distinct trained parameters."""

import math

import pytest
import torch
from making import with_gradients
from torch import nn

from cliplab import Clipper, MovingAverage


def test_channels_last_and_transposed_gradients_are_clipped_in_place():
    weight = nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last))
    matrix = nn.Parameter(torch.randn(300, 400).t())
    for scope, limit in (("global", 1e-2), ("tensor", 1e-4), ("unit", 1e-7)):
        weight.grad = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)
        matrix.grad = torch.randn(300, 400).t()
        raw = [p.grad.clone() for p in (weight, matrix)]
        report = Clipper([weight, matrix], limit, scope=scope).clip()
        if scope == "global":
            whole = torch.cat([g.flatten() for g in raw])
            torch.testing.assert_close(report.norm_before, whole.norm())
        for p, g in zip((weight, matrix), raw, strict=True):
            assert p.grad.norm() < g.norm()
            assert p.grad.stride() == g.stride()


@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_sparse_gradients_are_clipped_like_the_dense_ones_they_stand_for(scope, limit):
    torch.manual_seed(0)
    tables = [nn.Embedding(6, 3, sparse=sparse) for sparse in (True, False)]
    tables[1].load_state_dict(tables[0].state_dict())
    reports = []
    for table in tables:
        table(torch.tensor([1, 4, 1, 0])).square().sum().backward()
        reports.append(Clipper(table, limit, scope=scope).clip())
    assert tables[0].weight.grad.is_sparse
    torch.testing.assert_close(tables[0].weight.grad.to_dense(), tables[1].weight.grad)
    torch.testing.assert_close(reports[0].norm_before, reports[1].norm_before)
    optimizer = torch.optim.SGD(tables[0].parameters(), lr=0.1)
    optimizer.step()


def test_sparse_gradients_of_members():
    p = nn.Parameter(torch.zeros(2, 2))
    p.grad = torch.tensor([[3.0, 4.0], [0.0, 0.3]]).to_sparse()
    report = Clipper([p], 1.0, scope="member").clip()
    torch.testing.assert_close(report.norm_before, torch.tensor([5.0, 0.3]))


@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element", "member"])
def test_complex_gradients_are_clipped_by_their_magnitude(scope):
    p = nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))
    p.grad = torch.tensor([[3 + 4j, 0], [0.3 + 0.4j, 0]])
    report = Clipper([p], 1.0, scope=scope).clip()
    assert report.norm_before.max().item() == pytest.approx(
        math.sqrt(25.25) if scope in ("global", "tensor") else 5.0
    )
    assert p.grad[0, 0].abs().item() == pytest.approx(
        5 / math.sqrt(25.25) if scope in ("global", "tensor") else 1.0
    )
    assert p.grad[0, 0].angle().item() == pytest.approx(math.atan2(4, 3))


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
def test_empty_tensors_have_size_zero(scope, order):
    params = with_gradients(torch.tensor([3.0, 4.0]), torch.zeros(0), torch.zeros(0, 3))
    report = Clipper(params, 1.0, scope=scope, norm_type=order).clip()
    assert report.norm_before.reshape(-1)[1:].sum() == 0
    assert params[0].grad.abs().max() < 3.0


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit", "element"])
def test_a_parameter_given_twice_is_clipped_once(scope):
    params = with_gradients(torch.tensor([3.0, 4.0]))
    once = Clipper(params, 1.0, scope=scope).clip().norm_before
    params[0].grad = torch.tensor([3.0, 4.0])
    twice = Clipper([params[0], params[0]], 1.0, scope=scope).clip().norm_before
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("scope", ["group", "tensor", "unit"])
def test_a_gradient_missing_on_some_steps_neither_counts_nor_teaches(scope):
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    groups = [{"params": [p]} for p in params]
    clipper = Clipper(groups, MovingAverage(1.0, window=8, warmup=1), scope=scope)
    for step in range(6):
        params[0].grad = torch.tensor([3.0, 4.0])
        params[1].grad = None if step % 2 else torch.tensor([6.0, 8.0])
        clipper.clip()
    assert clipper.policy.state["count"].tolist() == [6, 3]
    assert params[1].grad is None


def test_parameters_that_are_frozen_later_have_size_zero():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    clipper = Clipper(model, 1.0, scope="tensor")
    model[0].requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    report = clipper.clip()
    assert report.norm_before[:2].tolist() == [0.0, 0.0]
    assert report.norm_before[2] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
def test_mixed_devices(scope):
    params = with_gradients(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0]]))
    moved = nn.Parameter(params[1].detach().cuda())
    moved.grad = params[1].grad.cuda()
    expected = Clipper(params, 1.0, scope=scope).clip().norm_before
    params[0].grad = torch.tensor([[3.0, 4.0]])
    found = Clipper([params[0], moved], 1.0, scope=scope).clip().norm_before
    torch.testing.assert_close(found, expected)
