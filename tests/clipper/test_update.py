"""``target="update"``: what a step does to the weights, measured and held back."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cliplab
from cliplab import EMA, RMS, Clipper, NonFiniteGradientError, Percentile, RobustSpike, WeightRatio

SHAPES = [(4, 3), (4,), (2, 3, 2), ()]


def weights(seed=0, dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def fill(params, seed, size=1.0):
    generator = torch.Generator().manual_seed(1000 + seed)
    for p in params:
        p.grad = (size * torch.randn(p.shape, generator=generator)).to(p.dtype)


OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1, weight_decay=0.1),
    "sgd, momentum, foreach": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, foreach=True),
    "sgd, fused": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, fused=True),
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.1, weight_decay=0.1),
    "adam, decoupled": lambda ps: torch.optim.Adam(
        ps, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.1, weight_decay=0.1),
    "adamw, foreach": lambda ps: torch.optim.AdamW(ps, lr=0.1, weight_decay=0.1, foreach=True),
    "adamw, fused": lambda ps: torch.optim.AdamW(ps, lr=0.1, weight_decay=0.1, fused=True),
    "adamw, capturable rate": lambda ps: torch.optim.AdamW(ps, lr=torch.tensor(0.1), foreach=False),
    "nadam": lambda ps: torch.optim.NAdam(
        ps, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "radam": lambda ps: torch.optim.RAdam(
        ps, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "adamax": lambda ps: torch.optim.Adamax(ps, lr=0.1),
    "adadelta": lambda ps: torch.optim.Adadelta(ps, lr=0.5),
    "adagrad": lambda ps: torch.optim.Adagrad(ps, lr=0.1),
    "adagrad, fused": lambda ps: torch.optim.Adagrad(ps, lr=0.1, fused=True),
    "adafactor": lambda ps: torch.optim.Adafactor(ps, lr=0.1, weight_decay=0.1),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.1, momentum=0.9),
    "rprop": lambda ps: torch.optim.Rprop(ps, lr=0.1),
    "muon": lambda ps: torch.optim.Muon([p for p in ps if p.ndim == 2], lr=0.1, weight_decay=0.1),
}
DECAYS = {
    "adam, decoupled": 0.1,
    "adamw": 0.1,
    "adamw, foreach": 0.1,
    "adamw, fused": 0.1,
    "adamw, capturable rate": 0.01,
    "nadam": 0.1,
    "radam": 0.1,
    "adafactor": 0.1,
    "muon": 0.1,
}


def held(name, seed=0):
    return weights(seed, shapes=[(4, 3), (3, 5)] if name == "muon" else SHAPES)


def rate_of(optimizer):
    return float(optimizer.param_groups[0]["lr"])


def norm_of(tensors):
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_measured_update_is_the_step_over_its_rate_without_decoupled_decay(name):
    params = held(name)
    optimizer = OPTIMIZERS[name](params)
    clipper = Clipper(params, math.inf, target="update")
    clipper.attach(optimizer)
    decay = DECAYS.get(name, 0.0)
    for step in range(5):
        before = [p.detach().double() for p in params]
        fill(params, step, size=10.0**-step)
        optimizer.step()
        rate = rate_of(optimizer)
        update = [
            (b * (1 - rate * decay) - p.detach().double()) / rate
            for b, p in zip(before, params, strict=True)
        ]
        assert float(clipper.history.norm_before[-1]) == pytest.approx(
            norm_of(update), rel=2e-4, abs=2e-5
        )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_where_nothing_is_too_large_no_weight_changes_by_a_bit(name):
    plain, clipped = held(name), held(name)
    optimizers = OPTIMIZERS[name](plain), OPTIMIZERS[name](clipped)
    Clipper(clipped, 1e9, target="update").attach(optimizers[1])
    for step in range(5):
        for params, optimizer in zip((plain, clipped), optimizers, strict=True):
            fill(params, step)
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(plain, clipped, strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
def test_what_is_too_large_is_held_back_and_the_state_is_not_told(name, scope):
    plain, clipped = held(name), held(name)
    optimizers = OPTIMIZERS[name](plain), OPTIMIZERS[name](clipped)
    clipper = Clipper(clipped, 0.05, scope=scope, target="update")
    clipper.attach(optimizers[1])
    decay = DECAYS.get(name, 0.0)
    for step in range(4):
        for q, p in zip(clipped, plain, strict=True):
            p.data.copy_(q.data)
        before = [p.detach().clone() for p in plain]
        for params, optimizer in zip((plain, clipped), optimizers, strict=True):
            fill(params, step)
            optimizer.step()
        rate = rate_of(optimizers[0])
        left = [b * (1 - rate * decay) for b in before]
        full = [(k - p.detach()) / rate for k, p in zip(left, plain, strict=True)]
        for u, p in zip(full, clipped, strict=True):
            p.grad = u.clone()
        by_hand = Clipper(clipped, 0.05, scope=scope)
        by_hand.clip()
        for k, p in zip(left, clipped, strict=True):
            torch.testing.assert_close(p.detach(), k - rate * p.grad, rtol=1e-5, atol=3e-6)
    for state, told in zip(optimizers[0].state.values(), optimizers[1].state.values(), strict=True):
        for key in state:
            torch.testing.assert_close(state[key], told[key], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["soft", "normalise"])
def test_the_other_modes(mode):
    params = weights()
    optimizer = torch.optim.SGD(params, lr=0.5)
    clipper = Clipper(params, 2.0, mode=mode, target="update")
    clipper.attach(optimizer)
    fill(params, 0, size=0.01 if mode == "normalise" else 10.0)
    size = norm_of([p.grad for p in params])
    before = [p.detach().clone() for p in params]
    optimizer.step()
    moved = norm_of([(b - p.detach()) / 0.5 for b, p in zip(before, params, strict=True)])
    expected = 2.0 if mode == "normalise" else size * 2 / (2 + size)
    assert moved == pytest.approx(expected, rel=1e-4)


def test_every_policy_sees_updates_through_a_schedule():
    """Of SGD without momentum the update is the gradient: the same limits, whatever the rate."""
    for policy in (EMA(warmup=0), Percentile(50), RobustSpike(), RMS(0.5), WeightRatio(0.5)):
        plain, updated = weights(), weights()
        by_gradient = Clipper(plain, policy, scope="tensor")
        by_update = Clipper(updated, policy, scope="tensor", target="update")
        optimizers = [torch.optim.SGD(ps, lr=0.125) for ps in (plain, updated)]
        by_gradient.attach(optimizers[0])
        by_update.attach(optimizers[1])
        schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in optimizers]
        for step in range(6):
            for params, optimizer, schedule in zip(
                (plain, updated), optimizers, schedules, strict=True
            ):
                fill(params, step, size=5.0 if step == 3 else 1.0)
                optimizer.step()
                schedule.step()
        for column in ("norm_before", "threshold", "factor"):
            torch.testing.assert_close(
                getattr(by_update.history, column),
                getattr(by_gradient.history, column),
                rtol=1e-3,
                atol=1e-5,
            )
        torch.testing.assert_close(plain, updated, rtol=1e-5, atol=1e-6)


def test_groups_with_rates_of_their_own_are_each_in_their_own_units():
    params = weights(shapes=[(3,), (3,)])
    optimizer = torch.optim.SGD(
        [{"params": params[:1], "lr": 0.1}, {"params": params[1:], "lr": 0.001}]
    )
    clipper = Clipper(params, 0.5, target="update")
    clipper.attach(optimizer)
    fill(params, 0)
    size = norm_of([p.grad for p in params])
    before = [p.detach().clone() for p in params]
    optimizer.step()
    assert float(clipper.history.norm_before[0]) == pytest.approx(size, rel=1e-3)
    for b, p, rate in zip(before, params, (0.1, 0.001), strict=True):
        torch.testing.assert_close(b - p.detach(), rate * p.grad * 0.5 / size, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_rate_of_zero_makes_a_part_inactive(as_tensor):
    params = weights(shapes=[(3,), (3,)])
    zero = torch.tensor(0.0) if as_tensor else 0.0
    optimizer = torch.optim.AdamW([{"params": params[:1], "lr": 0.1}, {"params": params[1:]}], 0.1)
    optimizer.param_groups[1]["lr"] = zero
    clipper = Clipper(params, EMA(warmup=0), scope="tensor", target="update")
    clipper.attach(optimizer)
    for step in range(3):
        fill(params, step)
        optimizer.step()
    assert clipper.policy.state["count"].tolist() == [3, 0]
    assert clipper.history.norm_before[:, 1].tolist() == [0.0] * 3


def test_a_warm_up_from_nothing_is_silent_and_learns_nothing():
    params = weights()
    optimizer = torch.optim.AdamW(params, lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1 * step)
    clipper = Clipper(params, EMA(warmup=0), target="update")
    clipper.attach(optimizer)
    for step in range(3):
        fill(params, step)
        optimizer.step()
        schedule.step()
    assert clipper.policy.state["count"].tolist() == [2]
    assert clipper.history.lr.tolist() == pytest.approx([0.0, 0.1, 0.2])


def test_missing_gradients_are_no_part_of_the_update():
    params = weights()
    optimizer = torch.optim.AdamW(params, lr=0.1)
    clipper = Clipper(params, EMA(warmup=0), scope="tensor", target="update")
    clipper.attach(optimizer)
    fill(params, 0)
    params[1].grad = None
    kept = params[1].detach().clone()
    optimizer.step()
    assert clipper.policy.state["count"].tolist() == [1, 0, 1, 1]
    assert torch.equal(params[1], kept)


@pytest.mark.parametrize("fused", [False, True])
def test_under_a_scaler_updates_are_in_true_units_and_a_dropped_step_is_none(fused):
    plain, scaled = weights(), weights()
    clippers, optimizers = [], []
    for params in (plain, scaled):
        optimizers.append(torch.optim.AdamW(params, lr=0.1, fused=fused))
        clippers.append(Clipper(params, EMA(warmup=0), target="update"))
        clippers[-1].attach(optimizers[-1])
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    for step in range(4):
        fill(plain, step)
        fill(scaled, step)
        if step == 2:
            scaled[0].grad.fill_(math.inf)
        else:
            optimizers[0].step()
            for p in scaled:
                p.grad *= scaler.get_scale() if step else 256.0
        scaler.scale(torch.zeros(()))
        before = [p.detach().clone() for p in scaled]
        scaler.step(optimizers[1])
        if step == 2:
            assert all(torch.equal(b, p) for b, p in zip(before, scaled, strict=True))
        scaler.update()
    torch.testing.assert_close(plain, scaled, rtol=1e-4, atol=1e-5)
    learnt = [clipper.policy.state["count"].tolist() for clipper in clippers]
    assert learnt == [[3], [3]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_other_dtypes(dtype):
    params = weights(dtype=dtype)
    optimizer = torch.optim.SGD(params, lr=0.5)
    clipper = Clipper(params, 0.25, target="update")
    clipper.attach(optimizer)
    before = [p.detach().clone() for p in params]
    fill(params, 0)
    optimizer.step()
    moved = math.sqrt(
        sum(
            float((b - p.detach()).abs().double().square().sum())
            for b, p in zip(before, params, strict=True)
        )
    )
    rough = dtype in (torch.bfloat16, torch.float16)
    assert moved / 0.5 == pytest.approx(0.25, rel=0.05 if rough else 1e-5)
    assert bool(clipper.history.clipped[0])


def test_sparse_gradients():
    embedding = nn.Embedding(6, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters(), lr=0.1)
    clipper = Clipper(embedding, 1.0, scope="unit", target="update")
    clipper.attach(optimizer)
    embedding(torch.tensor([1, 4])).sum().backward()
    before = embedding.weight.detach().clone()
    optimizer.step()
    moved = (before - embedding.weight.detach()).norm(dim=1) / 0.1
    torch.testing.assert_close(moved, torch.tensor([0.0, 1, 0, 0, 1, 0]), rtol=1e-4, atol=1e-5)


@given(st.integers(1, 8), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_a_run_resumed_in_the_middle_is_the_run(cut, kind):
    policy = [0.3, EMA(warmup=2), Percentile(40), RobustSpike()][kind]

    def build():
        params = weights()
        optimizer = torch.optim.AdamW(params, lr=0.1)
        clipper = Clipper(params, policy, scope="tensor", target="update")
        clipper.attach(optimizer)
        return params, optimizer, clipper

    def run(params, optimizer, steps):
        for step in steps:
            fill(params, step, size=30.0 if step % 4 == 3 else 1.0)
            optimizer.step()

    whole, optimizer, clipper = build()
    run(whole, optimizer, range(9))
    first, optimizer, clipper = build()
    run(first, optimizer, range(cut))
    states = copy.deepcopy((first, optimizer.state_dict(), clipper.state_dict()))
    second, optimizer, clipper = build()
    for p, saved in zip(second, states[0], strict=True):
        p.data.copy_(saved.data)
    optimizer.load_state_dict(states[1])
    clipper.load_state_dict(states[2])
    run(second, optimizer, range(cut, 9))
    assert all(torch.equal(p, q) for p, q in zip(whole, second, strict=True))


def test_a_bad_update_puts_the_weights_back_and_is_told():
    params = weights()
    optimizer = torch.optim.SGD(params, lr=0.1)
    Clipper(params, 1.0, target="update").attach(optimizer)
    before = [p.detach().clone() for p in params]
    fill(params, 0)
    params[1].grad[2] = math.nan
    with pytest.raises(NonFiniteGradientError, match=r"update norm.* nan.* at step 0"):
        optimizer.step()
    assert all(torch.equal(b, p) for b, p in zip(before, params, strict=True))


def test_a_bad_update_can_be_left_out_alone():
    params = weights()
    optimizer = torch.optim.SGD(params, lr=0.1)
    Clipper(params, 100.0, scope="tensor", nonfinite="zero", target="update").attach(optimizer)
    before = [p.detach().clone() for p in params]
    fill(params, 0)
    params[1].grad[2] = math.nan
    optimizer.step()
    torch.testing.assert_close(params[1].detach(), before[1])
    assert not torch.equal(params[0], before[0])


def test_a_bad_update_can_be_let_through():
    params = weights()
    optimizer = torch.optim.SGD(params, lr=0.1)
    Clipper(params, 1.0, scope="tensor", nonfinite="propagate", target="update").attach(optimizer)
    fill(params, 0)
    params[1].grad[2] = math.nan
    optimizer.step()
    assert [bool(p.isfinite().all()) for p in params] == [True, False, True, True]


@pytest.mark.parametrize("given_", [{"mode": "skip"}, {"nonfinite": "skip"}])
def test_an_update_cannot_be_skipped(given_):
    with pytest.raises(ValueError, match='target "update" cannot skip a step'):
        Clipper(weights(), target="update", **given_)


def test_it_works_through_attach_alone():
    clipper = Clipper(weights(), target="update")
    with pytest.raises(RuntimeError, match="attach"):
        clipper.clip()
    with pytest.raises(ValueError, match="target must be one of gradient, update, got 'updates'"):
        Clipper(weights(), target="updates")


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.ASGD])
def test_what_keeps_weights_or_steps_of_its_own_is_refused(kind):
    params = weights()
    optimizer = kind(params)
    with pytest.raises(
        ValueError, match=f"cannot limit the update of {kind.__name__}, which keeps"
    ):
        Clipper(params, target="update").attach(optimizer)
    Clipper(params, 1.0).attach(optimizer)


def test_two_sets_of_weights_are_recognised_and_so_is_what_is_held():
    class Averaging(torch.optim.SGD):
        def eval(self):
            """Put the average in the place of the weights."""

    class Holding(torch.optim.SGD):
        pass

    params = weights()
    with pytest.raises(ValueError, match="update of Averaging, which keeps"):
        Clipper(params, target="update").attach(Averaging(params))
    outer = Holding(params)
    outer.inner = Averaging(params)
    with pytest.raises(ValueError, match="update of Holding with Averaging, which keeps"):
        Clipper(params, target="update").attach(outer)


def test_a_wrapper_that_may_do_more_is_refused():
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer
            self.param_groups = optimizer.param_groups

        def step(self):
            self.optimizer.step()

    params = weights()
    wrapper = Wrapper(torch.optim.SGD(params))
    with pytest.raises(ValueError, match=r"update of Wrapper.*attach to that one if limiting"):
        Clipper(params, target="update").attach(wrapper)
    Clipper(params, target="update").attach(wrapper.optimizer)


def test_the_update_is_measured_without_a_limit_when_asked():
    params = weights()
    optimizer = torch.optim.AdamW(params, lr=0.1, weight_decay=0.1)
    clipper = Clipper(params, 0.5)
    clipper.attach(optimizer, measure_update=True)
    expected = []
    for step in range(4):
        before = [p.detach().double() for p in params]
        fill(params, step)
        optimizer.step()
        update = [
            (b * (1 - 0.01) - p.detach().double()) / 0.1
            for b, p in zip(before, params, strict=True)
        ]
        expected.append(norm_of(update))
    assert clipper.history.update_norm.tolist() == pytest.approx(expected, rel=1e-4)
    assert float(clipper.history.norm_after[0]) == pytest.approx(0.5)


def test_a_skipped_step_has_no_update_or_one_of_zero():
    params = weights()
    optimizer = torch.optim.SGD(params, lr=0.1)
    clipper = Clipper(params, 1e-9, mode="skip")
    clipper.attach(optimizer, measure_update=True)
    fill(params, 0)
    optimizer.step()
    assert clipper.history.update_norm.tolist() == [0.0]


def test_the_surprise_is_that_of_stable_adamw():
    """Root mean square of g / max(sqrt(v), eps), v the bias-corrected second moment, per tensor."""

    class Reads(cliplab.Threshold):
        def __call__(self, sizes, context):
            seen.append(context.surprise.clone())
            return torch.full_like(sizes, math.inf)

    seen, params = [], weights()
    optimizer = torch.optim.AdamW(params, lr=0.1, betas=(0.9, 0.99), eps=1e-6)
    Clipper(params, Reads(), scope="tensor", target="update").attach(optimizer)
    moments = [torch.zeros_like(p, dtype=torch.float64) for p in params]
    for step in range(1, 6):
        fill(params, step, size=50.0 if step == 4 else 1.0)
        optimizer.step()
        for i, p in enumerate(params):
            g = p.grad.double()
            moments[i] = 0.99 * moments[i] + 0.01 * g.square()
            unbiased = moments[i] / (1 - 0.99**step)
            expected = (g.square() / unbiased.clamp(min=1e-12)).mean().sqrt()
            assert float(seen[-1][i]) == pytest.approx(float(expected), rel=1e-4)


def test_a_surprise_needs_second_moments():
    class Reads(cliplab.Threshold):
        def __call__(self, sizes, context):
            return context.surprise

    params = weights()
    optimizer = torch.optim.SGD(params, lr=0.1)
    Clipper(params, Reads(), scope="tensor", target="update").attach(optimizer)
    fill(params, 0)
    with pytest.raises(ValueError, match="SGD has none"):
        optimizer.step()
    by_hand = weights()
    fill(by_hand, 0)
    with pytest.raises(ValueError, match="second moments"):
        Clipper(by_hand, Reads(), scope="tensor").clip()


def test_gradients_that_a_hook_drops_after_the_step_do_not_hide_the_update():
    params = weights()
    optimizer = torch.optim.SGD(params, lr=0.5)
    optimizer.register_step_post_hook(lambda optimizer, *_: optimizer.zero_grad())
    clipper = Clipper(params, 0.25, target="update")
    clipper.attach(optimizer)
    fill(params, 0)
    before = [p.detach().clone() for p in params]
    optimizer.step()
    moved = norm_of([(b - p.detach()) / 0.5 for b, p in zip(before, params, strict=True)])
    assert moved == pytest.approx(0.25, rel=1e-4)


def test_what_is_differentiated_is_refused():
    params = [p.detach().clone().requires_grad_() * 1 for p in weights()]
    optimizer = torch.optim.SGD(params, lr=0.1, differentiable=True)
    with pytest.raises(ValueError, match="cannot limit the update of a differentiable SGD"):
        Clipper(params, target="update").attach(optimizer)
    Clipper(params, 1.0).attach(optimizer)


def test_a_step_that_a_foreign_optimizer_leaves_out_has_an_update_of_zero():
    class Foreign(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            return super().step(closure)

    params = weights()
    optimizer = Foreign(params, lr=0.1)
    clipper = Clipper(params, 1e-9, mode="skip")
    clipper.attach(optimizer, measure_update=True)
    fill(params, 0)
    optimizer.step()
    assert clipper.history.update_norm.tolist() == [0.0]
