"""Clipping inside the backward pass is clip() after it, bit for bit."""

import copy
import gc
import math

import pytest
import torch
from policies import POLICIES
from torch import nn

import cliplab
from cliplab import (
    EMA,
    AfterWarmup,
    Bounded,
    Clipper,
    Decay,
    EntryDeviations,
    NonFiniteGradientError,
    Percentile,
    RateScaled,
    Scheduled,
    Surprise,
    Switch,
    Threshold,
    ZScore,
)

STEPS = 30
SCOPES = ["tensor", "unit"]
OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01),
}


class Model(nn.Module):
    """Some of its parameters have no gradient at some steps; one is empty, one is used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 11), nn.Linear(11, 6)
        self.norm, self.conv = nn.LayerNorm(11), nn.Conv1d(1, 9, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(()))
        self.nothing = nn.Parameter(torch.zeros(0, 3))

    def forward(self, xs, step):
        held = self.norm(torch.tanh(self.first(xs)))
        held = self.second(held) * self.scale
        if step % 3:
            held = held + self.conv(xs[:, None]).mean(dim=1)
        return 20 * self.first(held).square().mean()


def batches():
    torch.manual_seed(1)
    xs = torch.randn(STEPS, 8, 6)
    xs[17] *= 40  # a spike
    return xs


def make(kind="sgd"):
    torch.manual_seed(0)
    model = Model()
    return model, {p: OPTIMIZERS[kind]([p]) for p in model.parameters()}


def step_in_backward(optimizers):
    """What torchtune's recipes register."""

    def step(p):
        optimizers[p].step()
        p.grad = None

    return [p.register_post_accumulate_grad_hook(step) for p in optimizers]


def train_in_backward(model, clipper, xs, first=0):
    for step, x in enumerate(xs, first):
        loss = model(x, step)
        clipper.observe(loss)
        loss.backward()


def train_after_backward(model, optimizers, clipper, xs, first=0):
    for step, x in enumerate(xs, first):
        loss = model(x, step)
        loss.backward()
        clipper.clip(loss=loss)
        for p, optimizer in optimizers.items():
            if p.grad is not None:
                optimizer.step()
                p.grad = None


def fitted(make_policy, n_parts):
    """The policy, its masks for so many parts."""
    policy = make_policy()
    if isinstance(policy, Switch):
        mask = [i % 2 == 0 for i in range(n_parts)]
        inner = list(policy.inner.values())
        policy = Switch([(mask, inner[0]), ([not m for m in mask], inner[1])])
    return policy


def lacks(policy):
    """What such a policy asks for that a backward pass does not know."""
    if isinstance(policy, EMA) and policy.warmup > 0:
        return r"EMA\(ratio=.*asks for the norm of the whole"
    return {RateScaled: "the learning rate, which is not known", Surprise: 'target="update"'}.get(
        type(policy)
    )


def is_same(ours, theirs):
    """Bit for bit, but that any NaN is like any other."""
    pairs = [(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(ours, theirs, strict=True)]
    return all(((a == b) | (a.isnan() & b.isnan())).all() for a, b in pairs)


def compare(ours, theirs, clipper, other):
    assert is_same(ours.parameters(), theirs.parameters())
    assert clipper.steps == other.steps
    assert is_same([clipper.history.rows], [other.history.rows])
    ours, theirs = clipper.state_dict()["policy"], other.state_dict()["policy"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("scope", "kind"), [("tensor", "adamw"), ("unit", "sgd")])
@pytest.mark.parametrize("position", range(len(POLICIES)))
def test_every_policy_gives_what_clip_gives_and_resumes(position, scope, kind):
    n_parts = Clipper(make()[0], 1.0, scope=scope).partition.n_parts
    policy = fitted(POLICIES[position], n_parts)
    kind = "adamw" if policy.band else kind  # what raises gradients makes SGD diverge
    (ours, optimizers), (theirs, its), xs = make(kind), make(kind), batches()
    clipper, other = (Clipper(model, policy, scope=scope) for model in (ours, theirs))
    if lacks(policy):
        with pytest.raises(ValueError, match=lacks(policy)):
            clipper.clip_in_backward()
        assert clipper.attached is None
        return
    half = STEPS // 2
    with clipper.clip_in_backward():
        hooks = step_in_backward(optimizers)
        train_in_backward(ours, clipper, xs[:half])
        saved = copy.deepcopy(clipper.state_dict())
        for hook in hooks:
            hook.remove()
    train_after_backward(theirs, its, other, xs[:half])
    compare(ours, theirs, clipper, other)
    resumed, again = (Clipper(model, policy, scope=scope) for model in (ours, theirs))
    with resumed.clip_in_backward():
        resumed.load_state_dict(saved)
        step_in_backward(optimizers)
        train_in_backward(ours, resumed, xs[half:], half)
    again.load_state_dict(saved)
    train_after_backward(theirs, its, again, xs[half:], half)
    compare(ours, theirs, resumed, again)
    assert resumed.history.first_step == half


@pytest.mark.parametrize("scope", [*SCOPES, "element"])
@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "soft"},
        {"mode": "normalise"},
        {"norm_type": 1.0},
        {"norm_type": math.inf},
        {"eps": 1e-3},
        {"exclude": "norm.*"},
        {"nonfinite": "zero"},
        {"nonfinite": "propagate"},
    ],
)
def test_every_setting_gives_what_clip_gives(scope, settings):
    if scope == "element" and {"mode", "eps"} & settings.keys() | ({"zero"} & {*settings.values()}):
        pytest.skip("not a combination")
    (ours, optimizers), (theirs, its), xs = make(), make(), batches()
    clipper, other = (Clipper(m, 0.05, scope=scope, **settings) for m in (ours, theirs))
    clipper.clip_in_backward()
    step_in_backward(optimizers)
    if settings.get("nonfinite"):
        xs[20, 0, 0] = math.nan
    train_in_backward(ours, clipper, xs)
    train_after_backward(theirs, its, other, xs)
    if scope == "element":
        rows, expected = clipper.history.rows, other.history.rows
        assert is_same(ours.parameters(), theirs.parameters())
        torch.testing.assert_close(rows, expected, equal_nan=True)
    else:
        compare(ours, theirs, clipper, other)
    assert clipper.history.clipped.any()


def test_groups_and_patterns_with_thresholds_of_their_own():
    for scope in [*SCOPES, "element"]:
        (ours, optimizers), (theirs, its), xs = make(), make(), batches()
        rules = {"first.*": 0.01, "*.bias": Decay() if scope != "element" else 0.2, "*": 0.05}
        clipper, other = (Clipper(m, rules, scope=scope) for m in (ours, theirs))
        clipper.clip_in_backward()
        step_in_backward(optimizers)
        train_in_backward(ours, clipper, xs)
        train_after_backward(theirs, its, other, xs)
        assert is_same(ours.parameters(), theirs.parameters())
        torch.testing.assert_close(clipper.history.rows, other.history.rows)


def test_one_parameter_alone():
    for policy in (0.1, ZScore(warmup=2), Percentile()):
        ours, theirs = (nn.Linear(5, 1, bias=False) for _ in range(2))
        theirs.load_state_dict(ours.state_dict())
        clipper, other = (Clipper(m, policy, scope="tensor") for m in (ours, theirs))
        clipper.clip_in_backward()
        for x in torch.randn(20, 3, 5):
            for model in (ours, theirs):
                model.zero_grad()
                model(x).square().mean().backward()
            other.clip()
            assert torch.equal(ours.weight.grad, theirs.weight.grad)
        assert torch.equal(clipper.history.rows, other.history.rows)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("scope", SCOPES)
def test_other_dtypes(dtype, scope):
    def backward(model):
        generator = torch.Generator().manual_seed(3)
        for _ in range(10):
            model.zero_grad()
            x = torch.randn(4, 6, generator=generator)
            held = model[1](model[0](x).to(dtype))
            held.square().mean().backward()
            yield

    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 5).to(dtype))
    theirs = copy.deepcopy(ours)
    clipper, other = (Clipper(m, EMA(0.5, warmup=0), scope=scope) for m in (ours, theirs))
    clipper.clip_in_backward()
    for _ in zip(backward(ours), backward(theirs), strict=True):
        other.clip()
        assert all(
            torch.equal(p.grad, q.grad)
            for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)
        )
    assert torch.equal(clipper.history.rows, other.history.rows)


def test_a_sparse_gradient():
    ours, theirs = (nn.Embedding(6, 4, sparse=True) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    for scope in SCOPES:
        clipper, other = (Clipper(m, 0.01, scope=scope) for m in (ours, theirs))
        with clipper.clip_in_backward():
            for model in (ours, theirs):
                model.zero_grad()
                model(torch.tensor([1, 1, 4])).square().sum().backward()
        other.clip()
        assert torch.equal(ours.weight.grad.to_dense(), theirs.weight.grad.to_dense())


def test_the_cost_of_a_parameter_does_not_grow_with_their_number():
    asked = []

    class Counting(Threshold):
        def step(self, sizes, state, context):
            asked.append(len(sizes))
            return sizes * 0.5, {}

    for count in (2, 40):
        params = [nn.Parameter(torch.ones(3)) for _ in range(count)]
        clipper = Clipper(params, Counting(), scope="tensor")
        clipper.clip_in_backward()
        asked.clear()
        sum(p.sum() for p in params).backward()
        assert asked == [1] * count
        assert clipper.history.norm_after.shape == (1, count)


def test_a_pass_is_a_step_even_of_some_parameters():
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    clipper = Clipper([("a", a), ("b", b)], Decay(0.5, patience=1), scope="tensor")
    handle = clipper.clip_in_backward()
    for loss in (lambda: a.sum(), lambda: b.sum(), lambda: (a * b).sum()):
        a.grad = b.grad = None
        loss().backward()
    assert clipper.steps == len(clipper.history) == 3
    assert clipper.history.norm_before.gt(0).tolist() == [[True, False], [False, True], [True] * 2]
    assert clipper.policy.state["limit"].tolist() == pytest.approx([0.5 * 0.9**2] * 2)
    assert repr(handle) == "InBackward(2 parameters, at work)"
    assert "at work in the backward pass" in repr(clipper)
    handle.remove()
    assert repr(handle) == "InBackward(removed)"
    a.grad = None
    (100 * a).sum().backward()
    assert a.grad.tolist() == [100.0, 100.0]
    assert clipper.steps == 3
    assert clipper.attached is None


def test_a_parameter_in_two_places_of_one_graph_is_clipped_once():
    a = nn.Parameter(torch.ones(2))
    clipper = Clipper([a], 1.0, scope="tensor")
    clipper.clip_in_backward()
    (a.sum() * a.sum()).backward()
    assert clipper.history.norm_before.tolist() == [[pytest.approx(4 * math.sqrt(2))]]


def test_a_gradient_that_is_not_finite_is_raised_out_of_backward_by_name():
    model, optimizers = make()
    clipper = Clipper(model, 1.0, scope="tensor")
    clipper.clip_in_backward()
    step_in_backward(optimizers)
    loss = model(batches()[0], 1)
    with pytest.raises(NonFiniteGradientError, match=r"of \w+\.\w+ is nan at step 0"):
        (loss * math.nan).backward()
    before = clipper.steps
    model.zero_grad()
    train_in_backward(model, clipper, batches()[:3])
    assert clipper.steps == before + 3


def test_a_pass_that_another_hook_breaks_off_is_recorded_as_far_as_it_came():
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    clipper = Clipper([a, b], 1.0, scope="tensor")
    clipper.clip_in_backward()

    def fail(p):
        raise ZeroDivisionError

    hooks = [p.register_post_accumulate_grad_hook(fail) for p in (a, b)]
    with pytest.raises(ZeroDivisionError):
        (a + b).sum().backward()
    for hook in hooks:
        hook.remove()
    a.grad = b.grad = None
    (a + b).sum().backward()
    assert clipper.history.norm_before.gt(0).sum(dim=1).tolist() == [1, 2]


def test_a_hook_that_takes_the_gradient_first_is_named():
    a = nn.Parameter(torch.ones(2))

    def take(p):
        p.grad = None

    a.register_post_accumulate_grad_hook(take)
    Clipper([a], 1.0, scope="tensor").clip_in_backward()
    with pytest.raises(RuntimeError, match=r"call clip_in_backward\(\) first"):
        a.sum().backward()


def test_clipping_once_more_is_noticed():
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    clipper = Clipper([a, b], 1.0, scope="tensor")
    handle = clipper.clip_in_backward()
    (a + b).sum().backward()
    with pytest.warns(UserWarning, match=r"twice, by clip_in_backward\(\).*clip_grad_norm_"):
        cliplab.clip_grad_norm_([a, b], 1.0)
    with pytest.raises(RuntimeError, match="clip twice"):
        clipper.clip_in_backward()
    with pytest.raises(RuntimeError, match="clip twice"), clipper.microbatch():
        pass
    with pytest.raises(RuntimeError, match="clip twice"):
        clipper.guard()
    with pytest.raises(ValueError, match="already attached"):
        clipper.attach(torch.optim.SGD([a, b], lr=0.1))
    clipper.detach()
    handle.remove()
    clipper.clip_in_backward()


def test_it_goes_on_without_the_clippers_name():
    a = nn.Parameter(torch.ones(2))
    Clipper([a], 1.0, scope="tensor").clip_in_backward()
    gc.collect()
    (5 * a).sum().backward()
    assert float(a.grad.norm()) == pytest.approx(1.0)


def test_a_copy_is_not_at_work():
    a = nn.Parameter(torch.ones(2))
    clipper = Clipper([a], Decay(), scope="tensor")
    clipper.clip_in_backward()
    twin = copy.deepcopy(clipper)
    a.sum().backward()
    assert twin.attached is None
    assert (clipper.steps, twin.steps) == (1, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scope": "global"}, 'needs scope tensor, unit or element, got "global"'),
        ({"scope": "group"}, 'needs scope tensor, unit or element, got "group"'),
        ({"scope": "member"}, 'needs scope tensor, unit or element, got "member"'),
        ({"scope": "tensor", "mode": "skip"}, 'mode "skip" is too late'),
        ({"scope": "tensor", "nonfinite": "skip"}, 'nonfinite "skip" is too late'),
        ({"scope": "element", "threshold": EntryDeviations()}, "EntryDeviations.* learns"),
        ({"scope": "element", "nonfinite": "zero"}, 'nonfinite "zero" at scope "element"'),
        ({"scope": "tensor", "threshold": EMA()}, "asks for the norm of the whole gradient"),
        (
            {"scope": "tensor", "threshold": AfterWarmup(Bounded(EMA(warmup=3), high=1.0))},
            "AfterWarmup.*asks for the norm of the whole gradient",
        ),
    ],
)
def test_what_needs_the_others_is_refused_by_name(given, message):
    clipper = Clipper([nn.Parameter(torch.ones(2, 3)) for _ in range(2)], **given)
    with pytest.raises(ValueError, match=message):
        clipper.clip_in_backward()
    assert clipper.attached is None


def test_a_clipper_of_updates_or_of_computed_tensors_is_refused():
    a = nn.Parameter(torch.ones(2))
    with pytest.raises(RuntimeError, match='target="update"'):
        Clipper([a], 1.0, scope="tensor", target="update").clip_in_backward()
    with pytest.raises(ValueError, match="it needs leaves"):
        Clipper([a * 2], 1.0, scope="tensor").clip_in_backward()


def test_a_policy_that_asks_for_the_total_later_is_named_when_it_does():
    class Late(Threshold):
        def step(self, sizes, state, context):
            return (context.total_norm if context.step else sizes).expand_as(sizes), {}

    a = nn.Parameter(torch.ones(2))
    Clipper([a], Late(), scope="tensor").clip_in_backward()
    a.sum().backward()
    with pytest.raises(ValueError, match="total norm is not known inside the backward pass"):
        a.sum().backward()


def test_a_schedule_is_asked_with_the_number_of_the_pass():
    seen = []

    def limit(step, lr):
        seen.append((step, lr))
        return 1.0

    params = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    Clipper(params, Scheduled(limit), scope="tensor").clip_in_backward()
    for _ in range(2):
        sum(p.sum() for p in params).backward()
    assert seen == [(0, None)] * 2 + [(1, None)] * 2
