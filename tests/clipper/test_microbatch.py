"""What each backward pass adds is clipped before it is accumulated."""

import contextlib
import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap

import cliplab
from cliplab import Clipper, NonFiniteGradientError

IN, OUT = 3, 2
MODELS = {
    "linear": lambda width: nn.Linear(IN, OUT),
    "mlp": lambda width: nn.Sequential(nn.Linear(IN, width), nn.Tanh(), nn.Linear(width, OUT)),
    "norm": lambda width: nn.Sequential(nn.Linear(IN, width), nn.LayerNorm(width), nn.GELU()),
    "conv": lambda width: nn.Sequential(
        nn.Unflatten(1, (1, IN)), nn.Conv1d(1, width, 2), nn.ReLU(), nn.Flatten()
    ),
}


def loss_of(model, xs):
    return model(xs).square().sum()


def example_gradients(model, xs):
    """``[examples, ...]`` for every parameter, by torch.func."""

    def loss(params, x):
        return functional_call(model, params, (x[None],)).square().sum()

    held = {name: p.detach() for name, p in model.named_parameters()}
    return list(vmap(grad(loss), in_dims=(None, 0))(held, xs).values())


def accumulate(model, clipper, batches, scale=1.0):
    for xs in batches:
        with clipper.microbatch():
            (loss_of(model, xs) * scale).backward()


def backward_and_fail(model, xs):
    loss_of(model, xs).backward()
    raise ZeroDivisionError


def plain(model, batches):
    """The gradients that accumulate without any clipping."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    for xs in batches:
        loss_of(twin, xs).backward()
    return [p.grad for p in twin.parameters()]


def gradients(model):
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=15, deadline=None)
@given(
    width=st.integers(1, 6),
    n=st.integers(1, 7),
    limit=st.floats(0.01, 10.0),
    seed=st.integers(0, 99),
)
def test_with_one_example_each_it_is_per_example_clipping(kind, width, n, limit, seed):
    torch.manual_seed(seed)
    model, xs = MODELS[kind](width), torch.randn(n, IN)
    clipper = Clipper(model, limit)
    accumulate(model, clipper, xs.split(1))
    each = example_gradients(model, xs)
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in each]).norm(dim=0)
    factors = (limit / norms).clamp(max=1.0)
    for p, g in zip(model.parameters(), each, strict=True):
        expected = (g * factors.reshape(-1, *[1] * (g.ndim - 1))).sum(dim=0)
        torch.testing.assert_close(p.grad, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clipper.history.norm_before, norms, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
def test_one_micro_batch_is_clip(scope):
    torch.manual_seed(0)
    model, xs = MODELS["mlp"](4), torch.randn(5, IN)
    twin = copy.deepcopy(model)
    accumulate(model, Clipper(model, 0.3, scope=scope), [xs])
    loss_of(twin, xs).backward()
    Clipper(twin, 0.3, scope=scope).clip()
    assert all(map(torch.equal, gradients(model), gradients(twin)))


def test_without_a_limit_it_is_plain_accumulation_bit_for_bit():
    torch.manual_seed(0)
    model, batches = MODELS["norm"](5), torch.randn(4, 6, IN)
    expected = plain(model, batches)
    accumulate(model, Clipper(model, math.inf), batches)
    assert all(map(torch.equal, gradients(model), expected))


def test_a_mean_of_k_is_bounded_by_k_limits_of_c_over_k():
    torch.manual_seed(0)
    model, batches = MODELS["mlp"](4), torch.randn(8, 6, IN) * 100
    clipper = Clipper(model, 0.5 / 8)
    accumulate(model, clipper, batches, scale=1 / 8)
    assert clipper.history.clipped.all()
    assert cliplab.total_norm(gradients(model)) <= 0.5 * (1 + 1e-6)


def test_the_accumulated_tensor_stays_the_one_that_it_is():
    torch.manual_seed(0)
    model = MODELS["mlp"](4)
    clipper = Clipper(model, 0.1)
    accumulate(model, clipper, [torch.randn(2, IN)])
    held = gradients(model)
    accumulate(model, clipper, torch.randn(3, 2, IN))
    assert all(a is b for a, b in zip(held, gradients(model), strict=True))
    assert clipper.steps == len(clipper.history) == 4


def test_what_the_clipper_leaves_alone_accumulates_as_usual():
    torch.manual_seed(0)
    model, batches = MODELS["mlp"](4), torch.randn(3, 2, IN)
    expected = plain(model, batches)
    accumulate(model, Clipper(model, 1e-3, exclude="*bias"), batches)
    for (name, p), raw in zip(model.named_parameters(), expected, strict=True):
        assert torch.equal(p.grad, raw) == name.endswith("bias")


@pytest.mark.parametrize("settings", [{"mode": "skip"}, {"mode": "skip", "scope": "tensor"}])
def test_a_skipped_micro_batch_is_dropped_and_the_others_stay(settings):
    torch.manual_seed(0)
    model, batches = MODELS["linear"](1), torch.randn(4, 2, IN)
    batches[2] *= 1000
    expected = plain(model, batches[[0, 1, 3]])
    clipper = Clipper(model, 100.0, **settings)
    accumulate(model, clipper, batches)
    assert clipper.history.skipped.reshape(4, -1).any(dim=1).tolist() == [False, False, True, False]
    assert all(map(torch.equal, gradients(model), expected))


def test_where_all_are_dropped_there_is_no_gradient():
    model = MODELS["linear"](1)
    accumulate(model, Clipper(model, 1e-9, mode="skip"), torch.ones(2, 2, IN))
    assert gradients(model) == [None, None]


def test_a_micro_batch_that_is_not_finite_is_dropped():
    torch.manual_seed(0)
    model, batches = MODELS["linear"](1), torch.randn(3, 2, IN)
    batches[1] = math.nan
    expected = plain(model, batches[[0, 2]])
    accumulate(model, Clipper(model, 100.0, nonfinite="skip"), batches)
    assert all(map(torch.equal, gradients(model), expected))


def test_on_an_accelerator_zeros_are_added_for_it(monkeypatch):
    torch.manual_seed(0)
    model, batches = MODELS["linear"](1), torch.randn(3, 2, IN)
    batches[1] = math.nan
    expected = plain(model, batches[[0, 2]])
    clipper = Clipper(model, 100.0, nonfinite="skip")
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    accumulate(model, clipper, batches)
    torch.testing.assert_close(gradients(model), expected)


def test_an_error_puts_back_what_was_there():
    torch.manual_seed(0)
    model, xs = MODELS["linear"](1), torch.randn(2, IN)
    clipper = Clipper(model, 100.0)
    accumulate(model, clipper, [xs])
    held, values = gradients(model), [g.clone() for g in gradients(model)]
    with pytest.raises(NonFiniteGradientError):
        accumulate(model, clipper, [xs * math.nan])
    with pytest.raises(ZeroDivisionError), clipper.microbatch():
        backward_and_fail(model, xs)
    assert all(a is b for a, b in zip(held, gradients(model), strict=True))
    assert all(map(torch.equal, gradients(model), values))
    assert clipper.steps == len(clipper.history) == 1
    accumulate(model, clipper, [xs])  # and it goes on
    assert clipper.steps == 2


def test_no_gradient_is_warned_of_and_loses_nothing():
    model = MODELS["linear"](1)
    model.weight.grad = torch.ones(OUT, IN)
    with pytest.warns(UserWarning, match="no gradient at all"), Clipper(model, 1.0).microbatch():
        pass
    assert torch.equal(model.weight.grad, torch.ones(OUT, IN))
    assert model.bias.grad is None


def test_what_would_clip_twice_is_refused():
    model = MODELS["linear"](1)
    clipper = Clipper(model, 1.0)
    with (
        clipper.attach(torch.optim.SGD(model.parameters(), lr=0.1)),
        pytest.raises(RuntimeError, match=r"clip twice: detach\(\)"),
        clipper.microbatch(),
    ):
        pass
    with (
        pytest.raises(RuntimeError, match="open already"),
        clipper.microbatch(),
        clipper.microbatch(),
    ):
        pass
    updates = Clipper(model, 1.0, target="update")
    with pytest.raises(RuntimeError, match='has target="update"'), updates.microbatch():
        pass
    with pytest.raises(ValueError, match=r"scaler must be a torch\.amp\.GradScaler, got 'amp'"):
        clipper.microbatch(scaler="amp")


def test_sparse_and_mixed_gradients_accumulate():
    torch.manual_seed(0)
    model = nn.ModuleList(
        [nn.Embedding(6, 4, sparse=True), nn.Linear(4, 3).double(), nn.Linear(4, 3).bfloat16()]
    )
    batches = torch.randint(0, 6, (4, 5))

    def backward(model, indices):
        held = model[0](indices)
        total = model[1](held.double()).square().sum() + model[2](held.bfloat16()).square().sum()
        total.backward()

    twin = copy.deepcopy(model)
    clipper = Clipper(model, math.inf)
    for indices in batches:
        with clipper.microbatch():
            backward(model, indices)
        backward(twin, indices)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert p.grad.layout is q.grad.layout
        assert p.grad.dtype is p.dtype
        torch.testing.assert_close(p.grad.to_dense(), q.grad.to_dense())
    with Clipper(model, 0.1).microbatch():
        model[0].weight.square().sum().backward()  # a dense one upon a sparse one
    assert model[0].weight.grad.layout is torch.strided


def test_a_gradient_that_is_overwritten_in_place_is_not_lost():
    """As the reducer of DDP does, whose buckets the gradients are views of."""
    model = MODELS["linear"](1)
    bucket = torch.zeros(OUT * IN)
    model.bias.requires_grad_(False)
    clipper = Clipper(model, 1.0)
    for slope in (0.5, 0.25, 30.0):
        with clipper.microbatch():
            bucket.fill_(0).view(OUT, IN)[0, 0] = slope
            model.weight.grad = bucket.view(OUT, IN)
    assert model.weight.grad[0, 0] == 1.75
    assert model.weight.grad.data_ptr() == bucket.data_ptr()


class Overflow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * math.inf


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "zero", "propagate"])
def test_under_a_scaler_sizes_are_true_and_an_overflow_is_the_scalers(
    nonfinite, scope, look, monkeypatch
):
    torch.manual_seed(0)
    model, batches = MODELS["linear"](1), torch.randn(3, 2, IN)
    twin = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    policy = 0.5 if scope == "element" else cliplab.MovingAverage(0.5, 3, 1)
    clipper = Clipper(model, policy, nonfinite=nonfinite, scope=scope)
    unscaled = Clipper(twin, policy, nonfinite=nonfinite, scope=scope)
    monkeypatch.setattr("cliplab.checks.LOOK", look)
    for xs in batches:
        with clipper.microbatch(scaler=scaler):
            scaler.scale(loss_of(model, xs)).backward()
        with unscaled.microbatch():
            loss_of(twin, xs).backward()
    scaler.unscale_(optimizer)
    torch.testing.assert_close(gradients(model), gradients(twin), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(clipper.history.rows, unscaled.history.rows, rtol=1e-5, atol=1e-6)
    scaler.update()
    before, state = copy.deepcopy(model.state_dict()), clipper.policy.state_dict()
    with clipper.microbatch(scaler=scaler):
        scaler.scale(Overflow.apply(model(batches[0])).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    torch.testing.assert_close(model.state_dict(), before)
    torch.testing.assert_close(clipper.policy.state_dict(), state)
    assert clipper.history.skipped[-1].any()


def test_a_scaler_that_is_off_or_has_scaled_nothing():
    model, xs = MODELS["linear"](1), torch.ones(2, IN)
    clipper = Clipper(model, 100.0)
    with clipper.microbatch(scaler=torch.amp.GradScaler("cpu", enabled=False)):
        loss_of(model, xs).backward()
    kept = [g.clone() for g in gradients(model)]
    with (
        pytest.raises(RuntimeError, match="has not scaled any loss"),
        clipper.microbatch(scaler=torch.amp.GradScaler("cpu")),
    ):
        loss_of(model, xs).backward()
    assert all(map(torch.equal, gradients(model), kept))


def test_a_copy_has_no_micro_batch_open():
    model = MODELS["linear"](1)
    clipper = Clipper(model, 1.0)
    with clipper.microbatch():
        twin = copy.deepcopy(clipper)
        for p in twin.params:
            p.grad = torch.ones_like(p)
        with contextlib.ExitStack() as stack:
            stack.enter_context(twin.microbatch())
            for p in twin.params:
                p.grad = torch.ones_like(p)
        for p in clipper.params:
            p.grad = torch.ones_like(p)
    assert twin.steps == clipper.steps == 1
