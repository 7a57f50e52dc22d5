"""TensorFlow's forms, AGC and Graves' hook against the published rules and the peers themselves."""

import importlib
import importlib.util
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import cliplab
from cliplab.parts import unit_views

INF, NAN = math.inf, math.nan


def parameters(grads, weights):
    params = [nn.Parameter(w.clone()) for w in weights]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    return params


def tensors(*rows, dtype=torch.float32):
    return [torch.tensor(row, dtype=dtype) for row in rows]


# TensorFlow ---------------------------------------------------------------------------------------


def test_global_norm_leaves_unclipped_gradients_where_tensorflow_moves_them():
    for c in (41, 47, 55, 61, 82, 83):
        limit = torch.tensor(float(c))
        assert limit * (1 / limit) != 1  # TensorFlow's factor for what is within the limit
        for grad in (torch.tensor([1.7, 0.3]), torch.tensor([float(c)])):
            after = grad.clone()
            cliplab.clip_by_global_norm_([after], float(c))
            cliplab.clip_by_norm_(after, float(c))
            assert torch.equal(after, grad)


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_tensorflows_answers_to_what_is_not_finite(bad):
    grads = tensors([bad, 4.0], [1.0])
    norm = cliplab.clip_by_global_norm_(grads, 1.0)
    assert not norm.isfinite()
    assert all(g.isnan().all() for g in grads)
    one = torch.tensor([bad, 4.0])
    cliplab.clip_by_norm_(one, 1.0)
    assert one[0].isnan()
    assert one[1].isnan() if math.isnan(bad) else one[1] == 0


def test_tensorflows_zero_norm_none_and_given_norm():
    grads = [torch.zeros(2), None, torch.zeros(1)]
    assert cliplab.clip_by_global_norm_(grads, 0.0).item() == 0.0
    assert grads[1] is None
    assert grads[0].tolist() == [0.0, 0.0]
    assert cliplab.clip_by_global_norm_([None], 1.0).item() == 0.0
    for given in (10.0, torch.tensor(10.0)):
        grads = tensors([3.0, 4.0])
        assert float(cliplab.clip_by_global_norm_(grads, 5.0, use_norm=given)) == 10.0
        assert grads[0].tolist() == [1.5, 2.0]


@pytest.mark.parametrize("dim", [0, 1, -1, (0, 2), (), (0, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_along_axes(dim, dtype):
    grad = torch.randn(3, 4, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))
    after, dims = grad.clone(), (dim,) if isinstance(dim, int) else dim
    cliplab.clip_by_norm_(after, 0.8, dim)
    norm = grad.square().sum(dims, keepdim=True).sqrt() if dims else grad.abs()
    torch.testing.assert_close(after, grad * 0.8 / norm.clamp(min=0.8))
    assert not torch.equal(after, grad)


def test_axes_that_are_not_there_and_bounds_in_the_wrong_order_are_refused():
    for dim in (2, -3, (0, 5)):
        with pytest.raises(ValueError, match="dim must be axes of a dense tensor"):
            cliplab.clip_by_norm_(torch.ones(2, 2), 1.0, dim)
    with pytest.raises(ValueError, match=r"min must be at most max=0\.0, got 1\.0"):
        cliplab.clip_by_value_(torch.ones(2), 1.0, 0.0)
    for bad in (NAN, True, "1", None):
        with pytest.raises(ValueError, match="max must be a number"):
            cliplab.clip_by_value_(torch.ones(2), 0.0, bad)


def test_weights_can_be_clipped():
    weight = nn.Parameter(torch.tensor([-3.0, 0.5, 4.0]))
    cliplab.clip_by_value_([weight], -1.0, 2.0)
    assert weight.tolist() == [-1.0, 0.5, 2.0]
    assert weight.requires_grad


# Adaptive gradient clipping -----------------------------------------------------------------------


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
    params = parameters([grad], [weight])
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
    params = parameters([grad], [torch.ones(4, 2)])
    cliplab.adaptive_clip_(params, 0.1)
    limit = 0.1 * math.sqrt(2)
    torch.testing.assert_close(params[0].grad[0], limit * torch.tensor([0.6, 0.8]))
    assert params[0].grad[1].isnan().all()
    assert params[0].grad[2].isnan().tolist() == [True, False]
    torch.testing.assert_close(params[0].grad[3], limit * torch.tensor([0.6, 0.8]))
    half = parameters([torch.full((2, 1000), 3000.0).half()], [torch.ones(2, 1000).half()])
    cliplab.adaptive_clip_(half, 0.1)
    assert half[0].grad.float().norm(dim=1).tolist() == pytest.approx([math.sqrt(10)] * 2, rel=1e-3)


def peer(name):
    """A module of a library that need not be there, nor be whole where it is."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name}: {error}")


def timm_agc():
    """The one file of timm that is needed; all of it would need torchvision."""
    found = importlib.util.find_spec("timm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no timm")
    path = Path(found.submodule_search_locations[0]) / "utils" / "agc.py"
    specification = importlib.util.spec_from_file_location("agc", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("ratio", [0.01, 1.0, 100.0])
def test_timm_itself(ratio):
    timm = timm_agc()
    shapes = [(5, 4), (6,), (4, 3, 3), (7, 2, 3, 3), (2, 2, 2, 2, 2), ()]
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(s, generator=generator) for s in shapes]
    weights = [torch.randn(s, generator=generator) for s in shapes]
    weights[0][1] = 0
    grads[0][2, 0], grads[3][1, 1] = NAN, INF
    ours, theirs = parameters(grads, weights), parameters(grads, weights)
    cliplab.adaptive_clip_(ours, ratio)
    timm.adaptive_clip_grad(theirs, ratio)
    for a, b, g in zip(ours, theirs, grads, strict=True):
        rows = g.isfinite().reshape(len(g), -1).all(1) if g.ndim > 1 else ...
        torch.testing.assert_close(a.grad[rows], b.grad[rows])
        assert torch.equal(a.grad.isfinite(), b.grad.isfinite())


def test_optax_itself():
    optax, np = peer("optax"), peer("numpy")
    generator = torch.Generator().manual_seed(0)
    grad, weight = (torch.randn(5, 4, generator=generator) for _ in range(2))
    params = parameters([grad], [weight])
    cliplab.adaptive_clip_(params, 0.3)
    transform, columns = optax.adaptive_grad_clip(0.3), [weight.T.numpy()]  # (in, out)
    expected, _ = transform.update([grad.T.numpy()], transform.init(columns), columns)
    torch.testing.assert_close(params[0].grad.T, torch.from_numpy(np.array(expected[0])))


# Graves -------------------------------------------------------------------------------------------


def cell_gradients(xs, w, u, limit):
    """BPTT through h = tanh(w x + u h) by hand, dL/da clamped at every step; L = h_T^2 / 2."""
    states = [0.0]
    for x in xs:
        states.append(math.tanh(w * x + u * states[-1]))
    dh, dw, du = states[-1], 0.0, 0.0
    for t in reversed(range(len(xs))):
        da = max(-limit, min(limit, dh * (1 - states[t + 1] ** 2)))
        dw, du, dh = dw + da * xs[t], du + da * states[t], da * u
    return dw, du


@pytest.mark.parametrize("limit", [0.01, 0.05, INF])
def test_activation_clipping_in_bptt_is_that_by_hand(limit):
    xs, w, u = [0.3, -0.2, 0.5, 0.1, 0.4], 0.7, 1.6
    weights = torch.tensor([w, u], dtype=torch.float64, requires_grad=True)
    hidden = torch.zeros((), dtype=torch.float64)
    for x in xs:
        pre = weights[0] * x + weights[1] * hidden
        hidden = torch.tanh(cliplab.clip_activation_grad_(pre, limit))
    (hidden**2 / 2).backward()
    assert weights.grad.tolist() == pytest.approx(cell_gradients(xs, w, u, limit), rel=1e-12)
    unclipped = cell_gradients(xs, w, u, INF)
    assert (weights.grad.tolist() == pytest.approx(unclipped)) == (limit == INF)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_activation_clipping_per_token(dtype):
    x = torch.zeros(3, 2, dtype=dtype, requires_grad=True)
    gradient = torch.tensor([[30000.0, 40000.0], [0.3, 0.4], [0.0, 0.0]]).to(dtype)
    clipped = cliplab.clip_activation_grad_(x * 1, 1.0, 2.0)
    clipped.backward(gradient)
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(x.grad.float(), expected, rtol=1e-2, atol=0)
    assert x.grad.dtype == dtype


def test_activation_clipping_returns_its_tensor_and_passes_over_what_needs_no_gradient():
    for x in (torch.ones(2), torch.ones(2, requires_grad=True)):
        assert cliplab.clip_activation_grad_(x, 1.0) is x


@pytest.mark.parametrize("norm_type", [None, 2.0])
def test_activation_clipping_under_func_transforms(norm_type):
    def loss(w, x):
        return (cliplab.clip_activation_grad_(w * x, 0.5, norm_type) * 3).sum()

    w, x = torch.randn(4, 3), torch.randn(4, 3)
    clipped = 0.5 if norm_type is None else 0.5 / math.sqrt(3)
    torch.testing.assert_close(torch.func.grad(loss)(w, x), clipped * x)
    torch.testing.assert_close(torch.vmap(torch.func.grad(loss))(w, x), clipped * x)


def test_activation_clipping_can_be_differentiated_again():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    clipped = cliplab.clip_activation_grad_(x * 1, 10.0, 2.0)
    (first,) = torch.autograd.grad((clipped**2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, torch.full_like(x, 2.0))
