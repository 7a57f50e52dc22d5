"""Gradients that are not plain dense fp32 tensors of distinct trained parameters."""

import math

import pytest
import torch
from torch import nn

import cliplab
from cliplab import Clipper, Fixed, MovingAverage, Switch, WeightRatio


def with_grads(*grads):
    params = [nn.Parameter(torch.ones_like(torch.as_tensor(g))) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.as_tensor(g).clone()
    return params


# --- units ------------------------------------------------------------------------------------

LAYERS = {
    "linear": (nn.Linear(4, 3), 3),
    "conv1d": (nn.Conv1d(4, 6, 3), 6),
    "conv2d": (nn.Conv2d(4, 6, 3), 6),
    "conv3d": (nn.Conv3d(2, 6, 3), 6),
    "grouped conv": (nn.Conv2d(4, 6, 3, groups=2), 6),
    "transposed conv1d": (nn.ConvTranspose1d(4, 6, 3), 6),
    "transposed conv2d": (nn.ConvTranspose2d(4, 6, 3), 6),
    "transposed conv3d": (nn.ConvTranspose3d(2, 6, 3), 6),
    "grouped transposed conv": (nn.ConvTranspose2d(4, 6, 3, groups=2), 6),
    "embedding": (nn.Embedding(5, 4), 5),
}


@pytest.mark.parametrize(("layer", "units"), LAYERS.values(), ids=LAYERS.keys())
def test_one_unit_is_what_makes_one_output(layer, units):
    """A gradient that only one output produced lies in that unit alone, and only it is clipped."""
    shape = {nn.Linear: (2, 4), nn.Embedding: (5,)}.get(type(layer))
    if shape is None:
        dims = layer.weight.ndim - 2
        x = torch.randn(2, layer.in_channels, *[5] * dims)
    else:
        x = torch.arange(5) if isinstance(layer, nn.Embedding) else torch.randn(shape)
    channel = 0 if isinstance(layer, nn.Embedding) else 1
    for unit in (0, units - 1):
        layer.zero_grad()
        layer(x).select(channel, unit).square().sum().mul(100).backward()
        raw = layer.weight.grad.clone()
        clipper = Clipper(layer, 1e-3, scope="unit", exclude="bias")
        report = clipper.clip()
        assert report.norm_before.shape == (units,)
        assert report.clipped.nonzero().tolist() == [[unit]]
        torch.testing.assert_close(report.norm_before[unit], raw.norm())
        torch.testing.assert_close(layer.weight.grad, raw * (1e-3 / raw.norm()))


def test_agc_of_a_module_with_transposed_convolutions_sees_the_same_units():
    torch.manual_seed(0)
    layers = [nn.ConvTranspose2d(4, 6, 3, groups=2) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer in layers:
        layer(torch.ones(1, 4, 5, 5)).square().sum().backward()
    cliplab.create("agc", layers[0]).clip()
    cliplab.adaptive_clip_(layers[1])
    for a, b in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_channels_last_and_transposed_gradients_are_clipped_in_place():
    weight = nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last))
    weight.grad = torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last)
    matrix = nn.Parameter(torch.randn(300, 400).t())
    matrix.grad = torch.randn(300, 400).t()
    for scope, limit in (("global", 1e-2), ("tensor", 1e-4), ("unit", 1e-7)):
        raw = [p.grad.clone() for p in (weight, matrix)]
        report = Clipper([weight, matrix], limit, scope=scope).clip()
        if scope == "global":
            whole = torch.cat([g.flatten() for g in raw])
            torch.testing.assert_close(report.norm_before, whole.norm())
        for p, g in zip((weight, matrix), raw, strict=True):
            assert p.grad.norm() < g.norm()
            assert p.grad.stride() == g.stride()


# --- sparse, complex, empty, missing, frozen, repeated ------------------------------------------


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
    params = with_grads(torch.tensor([3.0, 4.0]), torch.zeros(0), torch.zeros(0, 3))
    report = Clipper(params, 1.0, scope=scope, norm_type=order).clip()
    assert report.norm_before.reshape(-1)[1:].sum() == 0
    assert params[0].grad.abs().max() < 3.0


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit", "element"])
def test_a_parameter_given_twice_is_clipped_once(scope):
    params = with_grads(torch.tensor([3.0, 4.0]))
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


def test_frozen_parameters_without_gradients_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    model(torch.ones(1, 2)).sum().backward()
    report = Clipper(model, 1.0, scope="tensor").clip()
    assert report.norm_before[:2].tolist() == [0.0, 0.0]
    assert report.norm_before[2] > 0


# --- groups -----------------------------------------------------------------------------------


def test_groups_have_their_own_thresholds_or_none():
    a, b, c = with_grads(
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
    a, b = with_grads(torch.tensor([3.0, 4.0]), torch.tensor([30.0, 40.0]))
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
    a, b = with_grads(torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]))
    c = with_grads(torch.tensor([6.0, 8.0]))
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
def test_mixed_devices(scope):
    params = with_grads(torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0]]))
    moved = nn.Parameter(params[1].detach().cuda())
    moved.grad = params[1].grad.cuda()
    expected = Clipper(params, 1.0, scope=scope).clip().norm_before
    params[0].grad = torch.tensor([[3.0, 4.0]])
    found = Clipper([params[0], moved], 1.0, scope=scope).clip().norm_before
    torch.testing.assert_close(found, expected)
