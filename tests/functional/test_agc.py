"""Adaptive clipping against the published rule, one tensor after the other."""

import math

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab.parts import unit_views

INF, NAN = math.inf, math.nan


def agc(grad, weight, dims, ratio=0.01, eps=1e-3):
    """The published rule for one tensor, as optax words it."""
    norm = grad.square().sum(dims, keepdim=True).sqrt()
    largest = ratio * weight.square().sum(dims, keepdim=True).sqrt().clamp(min=eps)
    return torch.where(norm < largest, grad, grad * (largest / norm.clamp(min=1e-6)))


@pytest.mark.parametrize("ratio", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("shape", [(), (5,), (5, 4), (5, 4, 3), (5, 4, 3, 2), (5, 4, 3, 2, 2)])
def test_adaptive_clipping_is_the_published_rule_for_every_rank(shape, ratio):
    generator = torch.Generator().manual_seed(len(shape))
    grad, weight = (torch.randn(shape, generator=generator) for _ in range(2))
    if len(shape) > 1:
        weight[0] = 0  # limited to ratio * eps, where Composer's stays 0 for ever
    params = with_gradients(grad, weights=[weight])
    cliplab.adaptive_clip_(params, ratio)
    dims = tuple(range(int(len(shape) > 1), len(shape)))
    torch.testing.assert_close(params[0].grad, agc(grad, weight, dims, ratio))
    assert params[0].grad.count_nonzero() == grad.numel()


def transposed(kind, groups):
    torch.manual_seed(0)
    layer = kind(4, 6, 3, groups=groups)
    layer.weight.grad = torch.randn_like(layer.weight)
    return layer


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("contiguous", [True, False])
def test_units_of_a_transposed_convolution_are_its_output_channels(kind, groups, contiguous):
    layer = transposed(kind, groups)
    if not contiguous:
        layer.weight.grad = layer.weight.grad.transpose(0, 1).contiguous().transpose(0, 1)
    before, weight = layer.weight.grad.clone(), layer.weight.detach()
    cliplab.adaptive_clip_(layer, 0.5)
    per, out = 4 // groups, 6 // groups
    for group in range(groups):
        for channel in range(out):
            unit = (slice(group * per, (group + 1) * per), channel)
            dims = tuple(range(before.ndim - 1))
            expected = agc(before[unit], weight[unit], dims, 0.5)
            torch.testing.assert_close(layer.weight.grad[unit], expected)
    assert unit_views(layer, [layer.weight])[0].kept.count(1) >= before.ndim - 1


def test_every_output_of_the_module_is_a_unit():
    """Scaling the weights into one output scales that unit's limit and no other's."""
    layer = transposed(nn.ConvTranspose2d, 2)
    channel = 4
    x = torch.randn(1, 4, 5, 5)
    reached = torch.autograd.grad(layer(x)[:, channel].sum(), layer.weight)[0] != 0
    layer.weight.grad = torch.ones_like(layer.weight)
    with torch.no_grad():
        layer.weight[reached] *= 10
    cliplab.adaptive_clip_(layer, 0.1)
    others = layer.weight.grad[~reached]
    assert layer.weight.grad[reached].unique().numel() == 1
    assert layer.weight.grad[reached].min() > others.max()


def test_half_precision_overflow_and_nan_stay_in_their_rows():
    grad = torch.tensor([[3e25, 4e25], [NAN, 1.0], [INF, 1.0], [3.0, 4.0]])
    params = with_gradients(grad)
    cliplab.adaptive_clip_(params, 0.1)
    limit = 0.1 * math.sqrt(2)
    torch.testing.assert_close(params[0].grad[0], limit * torch.tensor([0.6, 0.8]))
    assert params[0].grad[1].isnan().all()
    assert params[0].grad[2].isnan().tolist() == [True, False]
    torch.testing.assert_close(params[0].grad[3], limit * torch.tensor([0.6, 0.8]))
    half = with_gradients(torch.full((2, 1000), 3000.0).half())
    cliplab.adaptive_clip_(half, 0.1)
    assert half[0].grad.float().norm(dim=1).tolist() == pytest.approx([math.sqrt(10)] * 2, rel=1e-3)
