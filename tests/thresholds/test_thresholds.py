import dataclasses
import inspect
import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policies import POLICIES, context_of, feed, in_force, leaves, start
from torch.utils._python_dispatch import TorchDispatchMode

import cliplab
from cliplab import (
    EMA,
    RMS,
    AdaNorm,
    AfterWarmup,
    Bounded,
    Context,
    Decay,
    EntryDeviations,
    Fixed,
    LossRatio,
    MovingAverage,
    Percentile,
    Queue,
    Scheduled,
    Switch,
    TargetRate,
    Threshold,
    WeightRatio,
    ZScore,
    as_policy,
)


def test_every_policy_is_tested_here():
    public = vars(cliplab).values()
    policies = {c for c in public if inspect.isclass(c) and issubclass(c, Threshold)}
    alone = EntryDeviations  # has entries: see test_entries
    assert policies - {Threshold, alone} == {type(make()) for make in POLICIES}


@pytest.mark.parametrize("make", POLICIES)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.9, 7.0, math.nan, math.inf, 1e30]), max_size=12))
def test_nonfinite_sizes_never_enter_the_state(make, stream):
    clean = [size for size in stream if math.isfinite(size)]
    poisoned, reference = start(make), start(make)
    feed(poisoned, stream)
    feed(reference, clean)
    pairs = zip(leaves(poisoned.state_dict()), leaves(reference.state_dict()), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    probes = [0.5, 2.0, 9.0]
    limits = feed(poisoned, probes, first=20)
    assert torch.equal(limits, feed(reference, probes, first=20))
    assert not limits.isnan().any()


@pytest.mark.slow
@pytest.mark.parametrize("make", POLICIES)
@given(st.lists(st.sampled_from([0.0, 1e-30, 1.0, 3e38]), min_size=1, max_size=20))
def test_no_finite_size_breaks_a_policy_for_good(make, stream):
    policy = start(make)
    feed(policy, stream)
    limits = feed(policy, [1.0] * 60)
    assert not limits.isnan().any()
    assert not any(tensor.isnan().any() for tensor in leaves(policy.state_dict()))
    usual = type(policy) in (AdaNorm, LossRatio)  # which let a usual size be
    assert usual or limits[-1].isfinite().all()


def of_part(part, state):
    return {k: of_part(part, v) if isinstance(v, dict) else v[part] for k, v in state.items()}


@pytest.mark.parametrize("make", POLICIES)
def test_an_inactive_part_keeps_its_state(make):
    policy, reference = start(make), start(make)
    feed(policy, [1.0, 2.0, 3.0, 9.0, 1.0], active=torch.tensor([True, False]))
    found, wanted = of_part(1, policy.state_dict()), of_part(1, reference.state_dict())
    assert all(map(torch.equal, leaves(found), leaves(wanted)))


@pytest.mark.parametrize("make", POLICIES)
@given(cut=st.integers(0, 9))
def test_a_saved_policy_continues_bit_for_bit(make, cut):
    stream = [0.5, 1.5, 2.5, 0.2, 8.0, 3.0, 1.0, 1.0, 1.2, 0.7]
    whole, first, second = start(make), start(make), start(make)
    expected = feed(whole, stream)
    feed(first, stream[:cut])
    torch.save(first.state_dict(), file := io.BytesIO())
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(expected[cut:], feed(second, stream[cut:], first=cut).reshape(-1, 2))
    pairs = zip(leaves(whole.state_dict()), leaves(second.state_dict()), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("make", POLICIES)
def test_parts_do_not_notice_each_other(make):
    stream = torch.tensor([0.5, 1.5, 2.5, 0.2, 8.0, 3.0, 1.0])
    both, alone = start(make), start(make)
    total = stream.mul(math.sqrt(2))
    for step, size in enumerate(stream):
        sizes = torch.stack([size, size * 0.25])
        context = context_of(sizes, step=step)
        measured = context.measured._replace(total_norm=total[step])
        context = dataclasses.replace(context, measured=measured)
        limits = in_force(both(sizes, context), sizes)
        expected = in_force(alone(size.expand(2), context), size.expand(2))
        assert torch.equal(limits[0], expected[0])


class NoWaiting(TorchDispatchMode):
    """Fail where a value would be read from the device."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(op), "reads a value"
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", POLICIES)
def test_a_device_is_never_waited_for_and_gets_the_same_limits(make, monkeypatch):
    monkeypatch.setattr(Percentile, "exact_sizes", 6)
    stream = [0.5, 1.5, 2.5, 0.2, 8.0, 3.0, 1.0, 1.0, 1.2, 0.7, 9.0]
    expected = feed(start(make), stream)
    policy = start(make)
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    with NoWaiting():
        limits = feed(policy, stream)
    assert torch.equal(limits, expected)


def test_policies_that_do_not_look_at_sizes_say_so():
    assert [policy.stateless for policy in (Fixed(), Scheduled(max), Decay(), RMS())] == [
        True,
        True,
        False,
        False,
    ]
    assert Bounded(Fixed()).stateless
    assert not Bounded(Decay()).stateless
    assert not AfterWarmup(Fixed(), 3, until=Decay()).stateless
    assert Switch([([True, False], Fixed()), ([False, True], Fixed(2.0))]).stateless


def test_as_policy_takes_numbers_and_copies_policies():
    assert as_policy(3).value == 3.0
    policy = Switch([([True], inner := Decay())])
    copied = as_policy(policy)
    assert copied.cases[0][1] is not inner
    with pytest.raises(ValueError, match="got '1'"):
        as_policy("1")


def test_decay_waits_for_patience_hits_in_a_row_and_stops_at_the_floor():
    policy = start(lambda: Decay(1.0, alpha=0.5, patience=2, floor=0.3))
    limits = feed(policy, [2, 0.5, 2, 2, 2, 2, 2, 2])[:, 0].tolist()
    assert limits == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.3, 0.3])


def test_a_schedule_knows_step_and_learning_rate():
    seen = []
    policy = start(lambda: Scheduled(lambda step, lr: seen.append((step, lr)) or 2.0 / (step + 1)))
    assert feed(policy, [9.0, 9.0])[:, 0].tolist() == [2.0, 1.0]
    assert seen == [(0, 0.1), (1, 0.1)]


@pytest.mark.parametrize("bad", [-1.0, math.nan, None, "1"])
def test_a_bad_answer_of_a_schedule_is_named(bad):
    policy = start(lambda: Scheduled(lambda step, lr: bad))
    with pytest.raises(ValueError, match=f"the limit at step 0 must be .*, got {bad!r}"):
        feed(policy, [1.0])


def test_bounds_hold_the_limits_and_leave_the_inner_policy_alone():
    stream = torch.rand(60).add(0.5).tolist()
    inner = feed(start(lambda: Queue(5, initial=3.0)), stream)
    bounded = feed(start(lambda: Bounded(Queue(5, initial=3.0), 1.8, 2.4)), stream)
    assert (inner < 1.8).any()
    assert (inner > 2.4).any()
    assert torch.equal(bounded, inner.clamp(1.8, 2.4))


def test_after_warmup_lets_the_policy_learn_meanwhile():
    make = lambda: AfterWarmup(MovingAverage(1.0, window=2, warmup=1), steps=2, until=0.5)  # noqa: E731
    policy = start(make)
    assert feed(policy, [1.0, math.nan, 3.0, 7.0])[:, 0].tolist() == [0.5, 0.5, 0.5, 2.0]
    policy = start(make)
    feed(policy, [1.0, 3.0], active=torch.tensor([True, False]))
    assert feed(policy, [5.0]).tolist() == [[2.0, 0.5]]


def test_rms_is_per_entry():
    assert feed(start(lambda: RMS(2.0)), [1.0]).tolist() == [[6.0, 6.0]]


@pytest.mark.parametrize("make", [lambda: RMS(), lambda: WeightRatio(), lambda: EMA()])
def test_a_policy_without_a_clipper_says_what_it_needs(make):
    with pytest.raises(ValueError, match="this policy needs the"):
        start(make)(torch.ones(2), Context(torch.tensor([True, True])))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(-1.0), "threshold must be a number >= 0, got -1.0"),
        (lambda: Fixed(math.nan), "got nan"),
        (lambda: Fixed(True), "got True"),
        (lambda: Fixed("1.0"), "got '1.0'"),
        (lambda: Decay(alpha=1.0), "alpha must be between 0 and 1, got 1.0"),
        (lambda: Decay(patience=0), "patience must be an integer >= 1, got 0"),
        (lambda: TargetRate(rate=1.0), "rate must be between 0 and 1, got 1.0"),
        (lambda: TargetRate(initial=1e9), "initial must be between 1e-08 and 100000000.0, got"),
        (lambda: Scheduled(3.0), "function of step and lr, got 3.0"),
        (lambda: Bounded(1.0, 2.0, 1.0), "low must be at most high=1.0, got 2.0"),
        (lambda: Bounded("x"), "got 'x'"),
        (lambda: AfterWarmup(1.0, 0), "steps must be an integer >= 1, got 0"),
        (lambda: MovingAverage(window=5, warmup=6), "warmup must be at most window=5, got 6"),
        (lambda: EMA(beta=1.0), "beta must be >= 0 and < 1, got 1.0"),
        (lambda: EMA(warmup=-1), "warmup must be an integer >= 0, got -1"),
        (lambda: ZScore(response="clip"), "response must be reciprocal, mean or level, got 'clip'"),
        (lambda: ZScore(alpha=math.nan), "alpha must be a number >= 0, got nan"),
        (lambda: Queue(length=0), "length must be an integer >= 1, got 0"),
        (lambda: WeightRatio(ratio=-1), "ratio must be a number > 0, got -1"),
        (lambda: Percentile(101), "percentile must be between 0 and 100, got 101"),
        (lambda: Switch([]), "at least one"),
        (lambda: Switch([([True], Fixed()), ([False, True], Fixed())]), r"lengths \[1, 2\]"),
        (lambda: Switch([([True, True], Fixed()), ([True, False], Fixed())]), r"counts \[2, 1\]"),
    ],
)
def test_bad_arguments_name_the_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_of_another_kind_is_refused():
    policy = start(lambda: Decay())
    with pytest.raises(ValueError, match="Decay: expected state"):
        policy.load_state_dict(start(lambda: MovingAverage()).state_dict())
    make = lambda: Switch([([True, False], Decay()), ([False, True], Percentile(50))])  # noqa: E731
    switch, other = start(make), start(make)
    with pytest.raises(ValueError, match="Decay: expected state"):
        policy.load_state_dict(switch.state_dict())
    with pytest.raises(ValueError, match=r"Switch: expected \['0', '1'\], got \['0'\]"):
        switch.load_state_dict({"0": {}})
    feed(other, [5.0, 5.0])
    broken = {**other.state_dict(), "1": {}}
    with pytest.raises(ValueError, match="Percentile: expected state"):
        switch.load_state_dict(broken)
    assert switch.state_dict()["0"]["hits"].tolist() == [0, 0]
