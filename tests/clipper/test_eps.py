"""eps: torch's clip_grad_norm_ to the bit, and what it is at other scopes and modes."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cliplab
from cliplab import Clipper, MovingAverage
from cliplab.clipper import fast_step

SHAPES = [(7, 5), (5,), (2, 3, 4), ()]


def pair(seed, dtype, scale, count=4):
    """Twice the same parameters with the same gradients."""
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(s, generator=generator, dtype=dtype) * scale for s in SHAPES[:count]]
    both = [[nn.Parameter(torch.zeros_like(g)) for g in grads] for _ in range(2)]
    for params in both:
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
    return both


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("look", [True, False])
@given(
    seed=st.integers(0, 1000),
    limit=st.floats(0, 20).filter(lambda c: c == 0 or c > 1e-6),
    order=st.sampled_from([1.0, 2.0, 0.5, 3.0, math.inf]),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    count=st.integers(1, 4),
)
def test_it_is_torchs_clip_grad_norm_bit_for_bit(dtype, look, seed, limit, order, scale, count):
    ours, theirs = pair(seed, dtype, scale, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cliplab.checks.LOOK", look)
        if limit == 0:
            with pytest.warns(UserWarning, match="threshold of 0"):
                clipper = Clipper(ours, limit, norm_type=order, eps=1e-6, nonfinite="zero")
        else:
            clipper = Clipper(ours, limit, norm_type=order, eps=1e-6, nonfinite="zero")
        report = clipper.clip()
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit, order)
    assert torch.equal(report.norm_before, expected)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=st.integers(0, 1000), ulps=st.integers(-3, 3))
def test_at_the_limit_too(dtype, seed, ulps):
    """Where torch's factor may round to less than 1 although the size is not above the limit."""
    ours, theirs = pair(seed, dtype, 3.0)
    limit = float(torch.nn.utils.get_total_norm([p.grad for p in ours]) + 1e-6)
    limit *= 1 + ulps * torch.finfo(dtype).eps
    Clipper(ours, limit, eps=1e-6).clip()
    torch.nn.utils.clip_grad_norm_(theirs, limit)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


def test_a_training_run_is_torchs_bit_for_bit():
    def train(clip):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        step = clip(model, optimizer)
        for _ in range(50):
            optimizer.zero_grad()
            model(torch.randn(8, 6)).square().mean().backward()
            step()
        return list(model.parameters())

    def theirs(model, optimizer):
        def step():
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()

        return step

    def ours(model, optimizer):
        Clipper(model, 0.1, eps=1e-6).attach(optimizer)
        return optimizer.step

    assert all(map(torch.equal, train(ours), train(theirs)))


@pytest.mark.parametrize("scope", ["tensor", "unit", "group", "member"])
def test_other_scopes_take_the_same_formula_part_by_part(scope):
    params = [nn.Parameter(torch.zeros(3, 4)) for _ in range(2)]
    for p in params:
        p.grad = torch.randn(3, 4)
    plain = copy.deepcopy(params)
    for p, q in zip(params, plain, strict=True):
        q.grad = p.grad.clone()
    report = Clipper(params, 0.5, scope=scope, eps=0.25).clip()
    sizes = Clipper(plain, 0.5, scope=scope).clip().norm_before
    torch.testing.assert_close(report.norm_before, sizes)
    torch.testing.assert_close(report.factor, (0.5 / (sizes + 0.25)).clamp(max=1.0))
    torch.testing.assert_close(report.norm_after, sizes * report.factor)
    assert torch.equal(report.clipped, sizes + 0.25 > 0.5)


def test_normalise():
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([0.3, 0.4])
    report = Clipper([p], 2.0, mode="normalise", eps=0.5).clip()
    assert report.factor == 2.0
    torch.testing.assert_close(p.grad, torch.tensor([0.6, 0.8]))
    p.grad = torch.zeros(2)
    assert Clipper([p], 2.0, mode="normalise", eps=0.5).clip().norm_after == 0
    assert torch.equal(p.grad, torch.zeros(2))


def test_0_is_as_ever_and_as_fast():
    p = nn.Parameter(torch.zeros(2))
    assert Clipper([p], 1.0)._respond is fast_step.respond_to_one
    assert Clipper([p], 1.0, eps=0.0)._respond is fast_step.respond_to_one
    p.grad = torch.tensor([0.6, 0.8])
    assert Clipper([p], 1.0).clip().factor == 1.0
    p.grad = torch.tensor([0.6, 0.8])
    assert Clipper([p], 1.0, eps=1e-6).clip().factor < 1.0


@pytest.mark.parametrize("nonfinite", ["skip", "zero", "propagate"])
@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_not_finite_is_answered_as_without_it(nonfinite, scope, bad):
    def clip(**given):
        params, _ = pair(0, torch.float32, 1.0)
        params[1].grad[0] = bad
        report = Clipper(params, 0.5, scope=scope, nonfinite=nonfinite, **given).clip()
        return [p.grad for p in params], [report.norm_after, report.factor, report.skipped]

    for with_eps, without in zip(clip(eps=1e-6), clip(), strict=True):
        torch.testing.assert_close(with_eps, without, equal_nan=True, rtol=1e-4, atol=1e-6)


def test_without_a_limit_nothing_is_multiplied():
    params, _ = pair(0, torch.float32, 1.0)
    params[0].grad[0] = math.inf
    raw = [p.grad.clone() for p in params]
    Clipper(params, math.inf, eps=1e-6, nonfinite="propagate").clip()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, raw, strict=True))


def test_the_policy_sees_the_size_without_it():
    params, others = pair(0, torch.float32, 1.0)
    one, other = (Clipper(p, MovingAverage(0.5, 3, 1)) for p in (params, others))
    one = Clipper(params, MovingAverage(0.5, 3, 1), eps=1.0)
    for _ in range(2):
        for p in (*params, *others):
            p.grad = torch.ones_like(p)
        one.clip()
        other.clip()
    torch.testing.assert_close(one.policy.state_dict(), other.policy.state_dict())


def test_it_is_told_copied_and_pickled():
    params, _ = pair(0, torch.float32, 1.0)
    clipper = Clipper(params, 1.0, eps=1e-6)
    assert "eps=1e-06" in repr(clipper)
    assert "eps=" not in repr(Clipper(params, 1.0))
    for twin in (copy.deepcopy(clipper), pickle.loads(pickle.dumps(clipper))):
        for p in twin.params:
            p.grad = torch.ones_like(p)
        assert twin.clip().factor < 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eps": -1e-6}, "eps must be a number >= 0, got -1e-06"),
        ({"eps": "1e-6"}, "eps must be a number >= 0, got '1e-6'"),
        ({"eps": math.inf}, "eps must be finite, got inf"),
        ({"eps": 1e-6, "scope": "element"}, 'eps=1e-06 cannot be used with scope "element"'),
        ({"eps": 1e-6, "mode": "soft"}, 'eps=1e-06 needs mode rescale or normalise, got "soft"'),
        ({"eps": 1e-6, "mode": "skip"}, 'eps=1e-06 needs mode rescale or normalise, got "skip"'),
    ],
)
def test_what_has_no_formula_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Clipper([nn.Parameter(torch.zeros(2))], **given)


def test_a_gradient_that_is_missing_or_none_at_all():
    params, _ = pair(0, torch.float32, 1.0)
    clipper = Clipper(params, 0.5, eps=1e-6)
    params[0].grad = None
    total = cliplab.total_norm([p.grad for p in params[1:]])
    torch.testing.assert_close(clipper.clip().norm_before, total)
    for p in params:
        p.grad = None
    assert clipper.clip().norm_before == 0
