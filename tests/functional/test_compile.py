"""The stateless forms inside one graph, and under a guard that forbids looking at values."""

import math

import pytest
import torch
from making import with_gradients
from torch.utils._python_dispatch import TorchDispatchMode

import cliplab

pytestmark = pytest.mark.slow

LOOKS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2"}


def on_grads(clip):
    def form(params):
        return clip([p.grad for p in params])

    return form


def activation(norm_type):
    def form(params):
        clipped = [cliplab.clip_activation_grad_(p * 1.0, 0.5, norm_type) for p in params]
        grads = torch.autograd.grad(sum(c.square().sum() for c in clipped), params)
        for p, grad in zip(params, grads, strict=True):
            p.grad.copy_(grad)

    return form


FORMS = {
    "norm": lambda ps: cliplab.clip_grad_norm_(ps, 1.0),
    "norm, tensor limit": lambda ps: cliplab.clip_grad_norm_(ps, torch.tensor(1.0)),
    "norm inf": lambda ps: cliplab.clip_grad_norm_(ps, 1.0, math.inf),
    "norm, nothing to clip": lambda ps: cliplab.clip_grad_norm_(ps, 1e6),
    "with norm": lambda ps: cliplab.clip_grads_with_norm_(ps, 1.0, torch.tensor(9.0)),
    "total norm": on_grads(cliplab.get_total_norm),
    "value": lambda ps: cliplab.clip_grad_value_(ps, 0.1),
    "agc": lambda ps: cliplab.adaptive_clip_(ps, 0.1),
    "tf value": on_grads(lambda gs: cliplab.clip_by_value_(gs, -0.1, 0.2)),
    "tf norm": on_grads(lambda gs: cliplab.clip_by_norm_(gs, 0.3)),
    "tf norm, tensor limit": on_grads(lambda gs: cliplab.clip_by_norm_(gs, torch.tensor(0.3))),
    "tf norm of rows": on_grads(lambda gs: cliplab.clip_by_norm_(gs, 0.3, dim=-1)),
    "tf global norm": on_grads(lambda gs: cliplab.clip_by_global_norm_(gs, 0.3)),
    "tf given norm": on_grads(lambda gs: cliplab.clip_by_global_norm_(gs, 0.3, torch.tensor(2.0))),
    "activation": activation(None),
    "activation norm": activation(2.0),
}
INSIDE = {"activation", "activation norm"}  # their backward pass runs in the form itself


def parameters(dtype=torch.float32):
    torch.manual_seed(0)
    shapes = [(3, 4), (3,), (2, 3, 2)]
    weights, grads = ([torch.randn(shape).to(dtype) for shape in shapes] for _ in range(2))
    return with_gradients(*grads, weights=weights)


def step(form):
    def clip_and_update(params):
        norm = form(params)
        with torch.no_grad():
            for p in params:
                p.add_(p.grad, alpha=-0.1)
        return norm

    return clip_and_update


@pytest.fixture
def fresh_graphs():
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_graphs")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, pytest.param(torch.float64, marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize("name", [name for name in FORMS if name not in INSIDE])
def test_a_step_is_one_graph_and_does_what_the_eager_one_does(name, dtype):
    eager, compiled = parameters(dtype), parameters(dtype)
    expected = step(FORMS[name])(eager)
    run = torch.compile(step(FORMS[name]), fullgraph=True, backend="eager")
    torch.testing.assert_close(run(compiled), expected)
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
        torch.testing.assert_close(a.data, b.data)


@pytest.mark.usefixtures("fresh_graphs")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["norm", "agc", "tf global norm", "tf norm of rows"])
def test_a_step_through_aot_is_the_same(name):
    eager, compiled = parameters(), parameters()
    expected = step(FORMS[name])(eager)
    run = torch.compile(step(FORMS[name]), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(run(compiled), expected)
    for a, b in zip(compiled, eager, strict=True):
        torch.testing.assert_close(a.data, b.data)


@pytest.mark.usefixtures("fresh_graphs")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("norm_type", [None, 2.0])
def test_an_activation_is_clipped_behind_a_compiled_forward_pass(norm_type):
    def loss(w, x):
        return cliplab.clip_activation_grad_(x @ w, 0.5, norm_type).square().sum()

    x, w, same = torch.randn(5, 3), torch.randn(3, 4), torch.empty(3, 4)
    same.copy_(w)
    loss(w.requires_grad_(), x).backward()
    torch.compile(loss, fullgraph=True, backend="eager")(same.requires_grad_(), x).backward()
    torch.testing.assert_close(same.grad, w.grad)
    assert w.grad.abs().max() > 0


@pytest.mark.usefixtures("fresh_graphs")
def test_compiled_half_precision_does_not_overflow():
    def norm(tensors):
        return cliplab.get_total_norm(tensors)

    tensors = [torch.full((1000,), 3000.0, dtype=torch.float16), torch.ones(2)]
    compiled = torch.compile(norm, fullgraph=True, backend="eager")(tensors)
    assert compiled.item() == pytest.approx(3000 * math.sqrt(1000), rel=1e-6)


class Guard(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in LOOKS:
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


def test_the_guard_sees_a_look():
    with pytest.raises(AssertionError, match="waits for the device"), Guard():
        cliplab.clip_grad_norm_(parameters(), 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FORMS)
def test_no_form_looks_at_a_value_and_all_give_the_same_as_with_looks(monkeypatch, name, dtype):
    looking, blind = parameters(dtype), parameters(dtype)
    expected = FORMS[name](looking)
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    with Guard():
        result = FORMS[name](blind)
    torch.testing.assert_close(result, expected)
    for a, b in zip(blind, looking, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
