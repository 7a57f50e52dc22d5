"""Graves' hook against backpropagation through time by hand."""

import math

import pytest
import torch

import cliplab

INF = math.inf


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


@pytest.mark.parametrize(
    ("grad", "dtype"), [([3e25, 4e25], torch.float32), ([6e4, 6e4], torch.float16)]
)
def test_activation_clipping_survives_an_explosion(grad, dtype):
    x = torch.ones(2, dtype=dtype, requires_grad=True)
    grad = torch.tensor(grad, dtype=dtype)
    (cliplab.clip_activation_grad_(x * 1, 1.0, norm_type=2.0)).backward(grad)
    assert x.grad.float().norm().item() == pytest.approx(1.0, rel=3e-3)


@pytest.mark.parametrize("limit", [0.1, 0.9, 2.0])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_on_logits_every_samples_derivative_is_clipped_on_its_own(limit, reduction):
    torch.manual_seed(0)
    logits, labels = torch.randn(16, 5) * 4, torch.randint(0, 5, (16,))
    share = 1 / 16 if reduction == "mean" else 1.0
    leaf = logits.clone().requires_grad_()
    held = cliplab.clip_activation_grad_(leaf * 1, limit * share, norm_type=2)
    torch.nn.functional.cross_entropy(held, labels, reduction=reduction).backward()
    own = logits.softmax(dim=1) - torch.nn.functional.one_hot(labels, 5)
    sizes = own.norm(dim=1, keepdim=True)
    assert (sizes <= math.sqrt(2)).all()
    torch.testing.assert_close(leaf.grad, share * own * (limit / sizes).clamp(max=1.0))


def test_on_the_labels_probability_it_is_the_partially_huberised_cross_entropy():
    torch.manual_seed(0)
    tau, logits, labels = 3.0, torch.randn(64, 5) * 4, torch.randint(0, 5, (64, 1))
    clipped, huberised = (logits.clone().requires_grad_() for _ in range(2))
    p = cliplab.clip_activation_grad_(clipped.softmax(dim=1).gather(1, labels), tau / 64)
    (-p.log()).mean().backward()
    p = huberised.softmax(dim=1).gather(1, labels)
    assert 0 < (p <= 1 / tau).sum() < 64
    torch.where(p > 1 / tau, -p.log(), -tau * p + math.log(tau) + 1).mean().backward()
    torch.testing.assert_close(clipped.grad, huberised.grad)
