"""Gradients that are handed over, as torch.func returns them."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.func import grad as differentiate

from cliplab import EMA, Clipper, NonFiniteGradientError

SCOPES = ["global", "tensor", "unit", "element", "group"]


def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def sparse(rows, shape):
    values = torch.ones(len(rows), *shape[1:])
    return torch.sparse_coo_tensor([rows], values, shape, check_invariants=True)


def by_func(model, xs):
    """Gradients by name, without ``.grad``."""
    held = {name: p.detach() for name, p in model.named_parameters()}
    return differentiate(lambda params: functional_call(model, params, (xs,)).square().mean())(held)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("listed", [True, False])
def test_clipping_what_torch_func_gives_is_clipping_grad(scope, listed):
    model, twin = make(), make()
    xs = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    policy = 0.01 if scope == "element" else EMA(0.5, warmup=0)
    clipper, other = Clipper(model, policy, scope=scope), Clipper(twin, policy, scope=scope)
    for _ in range(3):
        twin.zero_grad()
        twin(xs).square().mean().backward()
        grads = {name: p.grad.clone() for name, p in twin.named_parameters()}
        torch.testing.assert_close(by_func(model, xs), grads)
        report = clipper.clip(grads=[*grads.values()] if listed else grads)
        assert torch.equal(report.factor, other.clip().factor)
        for name, p in twin.named_parameters():
            assert torch.equal(grads[name], p.grad)
    assert torch.equal(clipper.history.rows, other.history.rows)
    assert all(p.grad is None for p in model.parameters())


def test_a_training_loop_without_grad():
    model, xs = make(), torch.randn(5, 3)
    clipper = Clipper(model, 0.05)
    params = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(params):
        return functional_call(model, params, (xs,)).square().mean()

    first = loss(params)
    for _ in range(20):
        grads = differentiate(loss)(params)
        report = clipper.clip(loss=1.0, grads=grads)
        assert report.norm_after <= 0.05 * (1 + 1e-6)
        params = {name: p - 0.5 * grads[name] for name, p in params.items()}
    assert loss(params) < first
    assert clipper.steps == 20


def test_what_is_missing_has_no_gradient_and_what_is_left_alone_is_left_alone():
    model = make()
    clipper = Clipper(model, 0.1, scope="tensor", exclude="*bias")
    grads = {"0.weight": torch.ones(4, 3), "0.bias": torch.ones(4), "2.bias": None}
    report = clipper.clip(grads=grads)
    assert report.norm_before.tolist() == pytest.approx([math.sqrt(12), 0.0])
    assert torch.equal(grads["0.bias"], torch.ones(4))
    assert grads["0.weight"].norm() == pytest.approx(0.1)
    report = clipper.clip(grads=[None, torch.ones(2, 4)])
    assert report.norm_before.tolist() == pytest.approx([0.0, math.sqrt(8)])


def test_names_are_those_without_wrappers_or_with_them():
    model = make()
    wrapped = nn.Sequential()
    wrapped.module = model
    for source, prefix in ((model, "module."), (wrapped, ""), (wrapped, "module.")):
        grads = {prefix + name: torch.ones_like(p) for name, p in model.named_parameters()}
        Clipper(source, 0.1).clip(grads=grads)
        assert grads[f"{prefix}0.weight"].abs().max() < 0.1


BAD = {
    "count": (lambda: [None] * 3, "each of the clipper's 4 parameters .* got 3"),
    "no list": (lambda: torch.ones(3), "grads must be a sequence of tensors .* got a tensor"),
    "no tensor": (lambda: {"0.bias": 3.0}, "gradient of 0.bias must be a tensor, got 3.0"),
    "shape": (lambda: {"0.bias": torch.ones(5)}, r"of 0.bias has shape \(5,\), .* \(4,\)"),
    "dtype": (lambda: {"0.bias": torch.ones(4).half()}, "of 0.bias has dtype torch.float16"),
    "device": (lambda: {"0.bias": torch.ones(4, device="meta")}, "of 0.bias has device meta"),
    "name": (lambda: {"0.bais": torch.ones(4)}, r"holds '0.bais'.* \(did you mean '0.bias'\?\)"),
    "no name": (lambda: {0: torch.ones(4)}, "names of grads must be text"),
    "expanded": (lambda: {"0.bias": torch.ones(1).expand(4)}, r"of 0.bias share memory .*clone\("),
    "uncoalesced": (
        lambda: {"0.weight": sparse([0, 0], (4, 3))},
        "gradient of 0.weight must be dense, or sparse, coalesced",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_gradients_are_refused_by_name_before_anything_is_done(kind):
    make_grads, message = BAD[kind]
    clipper = Clipper(make(), EMA(warmup=0))
    state = copy.deepcopy(clipper.policy.state)
    with pytest.raises(ValueError, match=message):
        clipper.clip(grads=make_grads())
    assert clipper.steps == len(clipper.history) == 0
    torch.testing.assert_close(clipper.policy.state, state)


def test_one_tensor_for_two_parameters_is_refused():
    """As autograd gives it for a sum of two parameters."""
    a, b = (nn.Parameter(torch.ones(3)) for _ in range(2))
    clipper = Clipper([("a", a), ("b", b)], 1.0)
    grads = torch.autograd.grad((a + b).square().sum(), [a, b])
    assert grads[0].data_ptr() == grads[1].data_ptr()
    with pytest.raises(ValueError, match="gradients of a and b lie in the same memory"):
        clipper.clip(grads=grads)


def test_parts_of_one_buffer_and_sparse_rows_are_fine():
    flat = torch.ones(6)
    a, b = (nn.Parameter(torch.ones(3)) for _ in range(2))
    Clipper([a, b], 1.0).clip(grads=flat.split(3))
    assert float(flat.norm()) == pytest.approx(1.0)
    table = nn.Parameter(torch.ones(4, 3))
    for scope in ("global", "unit", "element"):
        grad = sparse([0, 2], (4, 3)).coalesce()
        Clipper([table], 0.1, scope=scope).clip(grads=[grad])
        assert float(grad.to_dense().abs().max()) < 0.11


def test_bare_tensors_have_no_names():
    clipper = Clipper([nn.Parameter(torch.ones(3))], 1.0)
    with pytest.raises(ValueError, match="this one is of bare tensors"):
        clipper.clip(grads={"a": torch.ones(3)})
    with pytest.raises(ValueError, match="gradient of tensor 0 has shape"):
        clipper.clip(grads=[torch.ones(4)])


def test_what_is_not_finite_is_raised_and_named():
    clipper = Clipper(make(), 1.0, scope="tensor")
    with pytest.raises(NonFiniteGradientError, match=r"of 0.bias"):
        clipper.clip(grads={"0.bias": torch.full((4,), math.nan)})
