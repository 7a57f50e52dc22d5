"""The probe: what it recommends, and that it leaves no trace."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cliplab import Clipper
from cliplab.diagnosis import find_threshold

LINEAR = nn.Linear(2, 1)
SGD = torch.optim.SGD(LINEAR.parameters())


def test_returned_norms_and_measured_ones_agree():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def norm(step):
        model.zero_grad()
        model(torch.randn(6, 4)).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()]).norm()

    torch.manual_seed(1)
    returned = find_threshold(norm, 30)
    torch.manual_seed(1)
    measured = find_threshold(norm, 30, params=model)
    torch.testing.assert_close(returned.norms, measured.norms)
    assert returned.threshold == measured.threshold
    assert returned.stable.tolist() == [False] * 3 + [True] * 27


def test_one_huge_norm_does_not_move_the_threshold():
    plain = find_threshold(lambda step: 1 + step % 10, 200)
    spiked = find_threshold(lambda step: 1e9 if step == 99 else 1 + step % 10, 200)
    assert plain.threshold == spiked.threshold == 9.0
    assert not spiked.diverged
    assert plain.band == (2.5, 50.0)


def test_a_heavy_tail_is_held_to_ten_times_the_median():
    assert find_threshold(lambda step: 1e3 if step % 5 == 0 else 1.0, 200).threshold == 10.0


@pytest.mark.parametrize("end", [1.5, math.nan, math.inf])
def test_a_diverging_probe_says_so_and_uses_what_came_before(end):
    result = find_threshold(lambda step: 1.0 + step % 2 if step < 120 else 100 * end ** (step - 90))
    assert result.diverged
    assert result.threshold == 2.0
    assert not result.stable[120:].any()
    assert "diverged" in str(result)
    assert "tenth of the learning rate" in str(result)


@pytest.mark.parametrize(
    ("norms", "advice"),
    [([1.0] * 10, "probe longer"), ([1.0] * 10 + [math.nan] * 90, "at a tenth of the learning")],
)
def test_too_few_stable_steps_give_no_threshold(norms, advice):
    result = find_threshold(lambda step: norms[step], len(norms))
    assert math.isnan(result.threshold)
    assert not result.found
    assert advice in result.advice


class Stateful(nn.Module):
    """Buffers of all kinds, dropout, and a parameter without a gradient."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))
        self.scale = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls = self.calls + 1  # another tensor every time
        return self.net(x) * self.scale.float().sum()


def everything(model, optimizer):
    tensors = [*model.parameters(), *model.buffers()]
    grads = [p.grad for p in model.parameters()]
    options = [
        {k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups
    ]
    state = [optimizer.state.get(p) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    return copy.deepcopy((tensors, grads, options, state, modes, torch.get_rng_state()))


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("stepped", [0, 2])
@pytest.mark.parametrize("fails", [False, True])
def test_a_probe_leaves_no_trace(stepped, fails):
    model = Stateful()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, amsgrad=True)

    def step_fn(step):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        model(torch.randn(6, 4)).square().mean().backward()
        optimizer.step()
        if fails and step == 3:
            raise RuntimeError("broken")

    for step in range(stepped):
        step_fn(step)
    for state in optimizer.state.values():  # wider than a bfloat16 parameter
        state["master"] = torch.full((3,), 1 + 1e-6)
    model.net.eval()
    identities = [id(t) for t in (*model.parameters(), *model.buffers())]
    before = everything(model, optimizer)
    if fails:
        with pytest.raises(RuntimeError, match="broken"):
            find_threshold(step_fn, 30, params=model, model=model, optimizer=optimizer)
    else:
        find_threshold(step_fn, 30, params=model, model=model, optimizer=optimizer)
    assert same(before, everything(model, optimizer))
    assert identities == [id(t) for t in (*model.parameters(), *model.buffers())]
    step_fn(0)
    assert not same(before, everything(model, optimizer))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: find_threshold(lambda step: 1.0, 0), "steps must be an integer >= 1"),
        (lambda: find_threshold(lambda step: None), "returned None: return the gradient norm"),
        (lambda: find_threshold(lambda step: -1.0), "norms >= 0, got -1"),
        (lambda: find_threshold(lambda step: 0.0), "every norm was 0"),
        (lambda: find_threshold(lambda step: 1, params=nn.Linear(1, 1)), "every norm was 0"),
        (lambda: find_threshold(3.0), "step_fn must be a function, got 3.0"),
        (lambda: find_threshold(lambda a, b: 1.0), r"take the step, or nothing; it takes \(a, b\)"),
        (lambda: find_threshold(lambda *, a: 1.0), r"it takes \(\*, a\)"),
        (lambda: find_threshold(lambda: "1"), "must return a number, the norm, got '1'"),
        (lambda: find_threshold(lambda: torch.ones(2)), r"got a tensor of shape \(2,\)"),
        (lambda: find_threshold(lambda: 1j), "got 1j"),
        (lambda: find_threshold(float, model=SGD), "model must be a module, got an opti"),
        (lambda: find_threshold(float, model=[1]), r"model must be a module, got \[1\]"),
        (lambda: find_threshold(float, optimizer=LINEAR), "must be an optimizer, got a module"),
        (
            lambda: find_threshold(float, params=SGD),
            "params must be a module or tensors, got an opt",
        ),
        (lambda: find_threshold(lambda: 1.0, model=nn.LazyLinear(3)), "is lazy"),
        (lambda: find_threshold(lambda: 1.0, params=nn.LazyLinear(3)), "is lazy"),
    ],
)
def test_bad_arguments_are_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()


def test_a_model_given_is_measured_where_the_step_returns_nothing():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def step(_):
        model(torch.ones(4, 3)).square().mean().backward()

    measured = find_threshold(step, steps=30, model=model)
    assert model.weight.grad is None
    model(torch.ones(4, 3)).square().mean().backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert measured.norms.tolist() == pytest.approx([norm.item()] * 30)
    returned = find_threshold(lambda _: (step(_), 7.0)[1], steps=30, model=model)
    assert returned.norms.tolist() == [7.0] * 30


@pytest.mark.parametrize("layer", [nn.LazyLinear(2), nn.LazyBatchNorm1d(affine=False)])
def test_a_lazy_model_wants_a_forward_pass_first(layer):
    with pytest.raises(ValueError, match=r"is lazy, it has no shape yet: run a forward pass first"):
        find_threshold(lambda step: 1.0, model=layer)


@pytest.mark.parametrize("params", [[], (), iter([]), nn.ReLU()])
def test_params_that_hold_none_are_not_taken_for_a_norm_returned(params):
    with pytest.raises(ValueError, match="no parameters to measure: params holds none"):
        find_threshold(lambda step: torch.tensor(0.7), params=params)


@pytest.mark.filterwarnings("ignore:many of the largest norms")  # as narrow as clipped ones
@pytest.mark.parametrize(("centre", "spread"), [(1.24, 0.005), (104, 1.0), (1e-3, 1e-9), (7e5, 3)])
def test_a_tenth_of_a_narrow_distribution_is_clipped(centre, spread):
    draw = random.Random(0)
    norms = [draw.gauss(centre, spread) for _ in range(400)]
    probe = find_threshold(lambda step: norms[step], 400)
    assert probe.threshold in norms
    used = norms[40:]
    share = sum(n > probe.threshold for n in used) / len(used)
    assert share == pytest.approx(0.1, abs=0.005)
    assert "10% of the norms were larger" in probe.advice


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=8),
    st.sampled_from([1, 7, 30]),
    st.sampled_from([1.0, 300.0]),
)
def test_the_advice_counts_what_was_larger(values, every, tail):
    norms = [values[i % len(values)] * (tail if i % every == 0 else 1.0) for i in range(100)]
    probe = find_threshold(lambda step: norms[step], 100)
    if probe.found:
        used = [n for n, stable in zip(norms, probe.stable.tolist(), strict=True) if stable]
        share = sum(n > probe.threshold for n in used) / len(used)
        assert f": {share:.0%} of the norms were larger" in probe.advice
        assert share <= 0.5


def test_norms_are_kept_as_they_were_measured():
    wide = find_threshold(lambda step: 1e300 * (1 + step / 7), 50)
    assert wide.norms.dtype == torch.float64
    assert wide.norms.tolist() == [1e300 * (1 + step / 7) for step in range(50)]
    single = find_threshold(lambda step: torch.tensor(1 + step / 7), 50)
    assert single.norms.dtype == torch.float32
    assert single.threshold in single.norms.tolist()


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64, "meta"])
def test_defaults_of_torch_change_no_norm(default):
    expected = find_threshold(lambda step: 1 + step % 10 / 7, 60)
    torch.set_default_device("meta") if default == "meta" else torch.set_default_dtype(default)
    try:
        found = find_threshold(lambda step: 1 + step % 10 / 7, 60)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert found.threshold == expected.threshold
    assert torch.equal(found.norms, expected.norms)


class Step:
    """A step that is a method."""

    def __init__(self):
        self.seen = []

    def without(self):
        self.seen.append(None)
        return 1.0

    def taking(self, step):
        self.seen.append(step)
        return 1.0

    def maybe(self, step=None, verbose=False):
        self.seen.append(step)
        return 1.0


def test_a_step_takes_its_number_or_nothing():
    step = Step()
    find_threshold(step.without, 2)
    find_threshold(step.taking, 2)
    find_threshold(step.maybe, 2)
    find_threshold(lambda *args: step.taking(*args), 2)
    assert step.seen == [None, None, 0, 1, 0, 1, 0, 1]
    assert find_threshold(abs, 30).norms.tolist() == list(range(30))


def small(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **options)


def train(model, optimizer):
    optimizer.zero_grad()
    model(torch.randn(6, 4)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("fails", [False, True])
def test_all_that_was_changed_in_place_is_the_same_object_with_the_same_bits(fails):
    model, _ = small()
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, capturable=False)
    train(model, optimizer)
    extra = nn.Parameter(torch.ones(2))
    optimizer.param_groups[0]["history"] = [rate.clone()]
    optimizer.counter = 5
    weight, buffer = model[0].weight, model[1].running_mean
    moments = optimizer.state[weight]
    group, params = optimizer.param_groups[0], optimizer.param_groups[0]["params"]
    objects = [rate, weight, buffer, weight.grad, group["history"][0], *moments.values()]
    values = [t.clone() for t in objects]
    names, states, held = list(group), len(optimizer.state), weight.grad

    def step_fn():
        optimizer.param_groups[0]["lr"].mul_(0.5)
        group["history"].append(3)
        group["history"][0].zero_()
        group["new"] = 1
        optimizer.counter += 1
        if len(optimizer.param_groups) == 1:
            optimizer.add_param_group({"params": [extra]})
        extra.grad = torch.ones(2)
        model.new = 1
        model[1].running_mean = torch.ones(3)
        model[0].weight = nn.Parameter(torch.zeros(3, 4))
        weight.data.zero_()
        held.zero_()
        train(model, optimizer)
        if fails:
            raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            find_threshold(step_fn, 3, model=model, optimizer=optimizer)
    else:
        find_threshold(step_fn, 3, model=model, optimizer=optimizer)
    assert model[0].weight is weight
    assert model[1].running_mean is buffer
    assert optimizer.param_groups == [group]
    assert group["params"] is params
    assert list(group) == names
    assert group["lr"] is rate
    assert optimizer.state[weight] is moments
    assert len(optimizer.state) == states
    assert optimizer.counter == 5
    now = [rate, weight, buffer, weight.grad, *group["history"], *moments.values()]
    assert all(a is b for a, b in zip(now, objects, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(now, values, strict=True))
    rate.fill_(0.0)  # the owner's tensor still is the optimizer's
    before = weight.detach().clone()
    train(model, optimizer)
    assert torch.equal(weight, before)


def test_training_goes_on_as_if_there_had_been_no_probe():
    runs = []
    for probe in (False, True):
        model, optimizer = small()
        train(model, optimizer)
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        if probe:

            def step_fn(step, model=model, optimizer=optimizer):
                model.eval()
                random.random()
                np.random.rand()  # noqa: NPY002
                train(model.train(), optimizer)

            find_threshold(step_fn, 4, model=model, optimizer=optimizer)
        drawn = random.random(), np.random.rand()  # noqa: NPY002
        for _ in range(5):
            train(model, optimizer)
        runs.append((drawn, model.state_dict(), optimizer.state_dict()["state"]))
    (drawn, weights, state), (drawn_too, weights_too, state_too) = runs
    assert drawn == drawn_too
    assert same(weights, weights_too)
    assert same(state, state_too)


def test_gradients_of_parameters_are_given_back_without_a_model():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = kept = torch.tensor([1.0, 2.0])

    def step_fn(step):
        (weight * step).sum().backward()

    probe = find_threshold(step_fn, 30, params=[weight])
    assert probe.norms.tolist() == pytest.approx([step * math.sqrt(2) for step in range(30)])
    assert weight.grad is kept
    assert kept.tolist() == [1.0, 2.0]


def test_buffers_that_share_their_memory_are_left_alone():
    model = nn.Linear(2, 1)
    model.register_buffer("mask", torch.ones(1).expand(5))
    model.register_buffer("nothing", None)
    mask = model.mask
    find_threshold(lambda: model(torch.ones(3, 2)).sum().backward(), 30, model=model)
    assert model.mask is mask


def test_sparse_gradients_are_given_back():
    model = nn.Embedding(5, 2, sparse=True)
    model(torch.tensor([1, 3])).sum().backward()
    grad, values = model.weight.grad, model.weight.grad.to_dense()
    find_threshold(lambda: model(torch.tensor([0])).sum().backward(), 30, model=model)
    assert model.weight.grad is grad
    assert torch.equal(grad.to_dense(), values)


def linear_steps(clip=None):
    """A small network that is trained by the step; ``clip(parameters)`` before each."""
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step(number):
        optimizer.zero_grad()
        (model(torch.randn(16, 8)).square().sum() * 10).backward()
        if clip:
            clip(model.parameters())
        optimizer.step()

    return step, model, optimizer


@pytest.mark.parametrize("limit", [1e-3, 1.0, 20.0])
@pytest.mark.parametrize("by_hand", [True, False])
def test_a_probe_of_gradients_that_are_clipped_already_says_so(limit, by_hand):
    hand = lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, limit)  # noqa: E731
    step, model, optimizer = linear_steps(hand if by_hand else None)
    if not by_hand:
        Clipper(model, threshold=limit).attach(optimizer)
    with pytest.warns(UserWarning, match=r"as if gradients were clipped already"):
        find_threshold(step, model=model, optimizer=optimizer)


def test_a_probe_of_raw_gradients_or_of_rare_clips_warns_of_nothing():
    step, model, optimizer = linear_steps()
    largest = find_threshold(step, model=model, optimizer=optimizer).norms.max().item()
    Clipper(model, threshold=0.9 * largest).attach(optimizer)
    find_threshold(step, model=model, optimizer=optimizer)
