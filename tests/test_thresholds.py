import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab import Context, Decay, Fixed, MovingAverage, Percentile, Switch

POLICIES = [
    lambda: Fixed(1.0),
    lambda: Decay(1.0, alpha=0.5, patience=2, floor=0.1),
    lambda: MovingAverage(2.0, window=4, warmup=2),
    lambda: Percentile(30.0),
    lambda: Percentile(30.0, window=4),
    lambda: Switch([([True, False], Decay()), ([False, True], Percentile(50))]),
]


def feed(policy, stream, active=None):
    """Limits of a two-part policy over a stream of sizes; both parts get the same."""
    active = torch.tensor([True, True]) if active is None else active
    out = []
    for step, size in enumerate(stream):
        sizes = torch.full((2,), size)
        out.append(policy(sizes, Context(active=active, step=step)).clone())
    return torch.stack(out) if out else torch.empty(0, 2)


def start(make):
    policy = make()
    policy.init(2)
    return policy


@pytest.mark.parametrize("make", POLICIES)
@given(st.lists(st.sampled_from([0.1, 0.9, 1.1, 7.0, math.nan, math.inf]), min_size=1, max_size=12))
def test_nonfinite_sizes_never_enter_the_state(make, stream):
    clean = [size for size in stream if math.isfinite(size)]
    poisoned, reference = start(make), start(make)
    feed(poisoned, stream)
    feed(reference, clean)
    for step, probe in enumerate([0.5, 2.0, 9.0]):
        context = Context(active=torch.tensor([True, True]), step=20 + step)
        sizes = torch.full((2,), probe)
        torch.testing.assert_close(poisoned(sizes, context), reference(sizes, context))


@pytest.mark.parametrize("make", POLICIES)
def test_an_inactive_part_keeps_its_state(make):
    policy, reference = start(make), start(make)
    feed(policy, [1.0, 2.0, 3.0], active=torch.tensor([True, False]))
    torch.testing.assert_close(
        flat(policy.state_dict(), part=1), flat(reference.state_dict(), part=1)
    )


def flat(state, part):
    parts = [
        v
        for value in state.values()
        for v in (value.values() if isinstance(value, dict) else [value])
    ]
    return [tensor[part] for tensor in parts]


@pytest.mark.parametrize("make", POLICIES)
@given(cut=st.integers(0, 9))
def test_a_saved_policy_continues_bit_for_bit(make, cut):
    stream = [0.5, 1.5, 2.5, 0.2, 8.0, 3.0, 1.0, 1.0, 1.2, 0.7]
    whole, first, second = start(make), start(make), start(make)
    expected = feed(whole, stream)
    feed(first, stream[:cut])
    second.load_state_dict(first.state_dict())
    rest = [
        second(torch.full((2,), size), Context(torch.tensor([True, True]), step=cut + i)).clone()
        for i, size in enumerate(stream[cut:])
    ]
    assert all(torch.equal(a, b) for a, b in zip(expected[cut:], rest, strict=True))


def test_decay_waits_for_patience_hits_in_a_row_and_stops_at_the_floor():
    policy = start(lambda: Decay(1.0, alpha=0.5, patience=2, floor=0.3))
    limits = feed(policy, [2, 0.5, 2, 2, 2, 2, 2, 2])[:, 0].tolist()
    assert limits == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.3, 0.3])


def test_moving_average_is_of_previous_sizes():
    policy = start(lambda: MovingAverage(2.0, window=2, warmup=1))
    assert feed(policy, [1.0, 3.0, 5.0, 100.0])[:, 0].tolist() == [math.inf, 2.0, 4.0, 8.0]


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40),
    st.floats(0, 100),
    st.sampled_from([None, 1, 7]),
)
def test_percentile_equals_numpy(stream, percentile, window):
    policy = start(lambda: Percentile(percentile, window))
    limits = feed(policy, stream)[:, 0]
    for t, limit in enumerate(limits.tolist()):
        seen = np.array(stream[: t + 1], dtype=np.float32)[-(window or len(stream)) :]
        assert limit == pytest.approx(np.percentile(seen, percentile), rel=1e-5)


def test_percentile_beyond_the_exact_range_is_within_half_a_percent():
    generator = torch.Generator().manual_seed(1)
    sizes = torch.randn(6000, generator=generator).mul(2).exp()
    policy = Percentile(10.0)
    policy.init(1)
    active = torch.tensor([True])
    for step, size in enumerate(sizes):
        limit = policy(size.reshape(1), Context(active, step=step))
    assert limit.item() == pytest.approx(np.percentile(sizes.numpy(), 10), rel=6e-3)


def test_percentile_is_exact_for_a_part_that_comes_late():
    policy = start(lambda: Percentile(50))
    first = torch.tensor([True, False])
    for step in range(5000):
        policy(torch.tensor([1.0, 9.0]), Context(first, step))
    both = torch.tensor([True, True])
    policy(torch.tensor([1.0, 1.0]), Context(both, 5000))
    assert policy(torch.tensor([1.0, 3.0]), Context(both, 5001))[1].item() == 2.0


def test_percentile_takes_sizes_of_any_magnitude_and_answers_only_active_parts():
    policy = start(lambda: Percentile(50))
    limits = feed(policy, [1e-30, 1e30, 3e38, math.nan])
    assert limits[1, 0].item() == pytest.approx(5e29, rel=1e-3)
    assert limits[3].isnan().all()


@pytest.mark.parametrize("make", [lambda: MovingAverage(1.0, 2, 1), lambda: Percentile(50, 3)])
def test_a_double_that_overflows_the_state_does_not_enter_it(make):
    policy = start(make)
    both = torch.tensor([True, True])
    for step, size in enumerate([1.0, 1e39, 1.0, 1.0]):
        policy(torch.full((2,), size, dtype=torch.float64), Context(both, step))
    assert policy.state["count"].tolist() == [3, 3]
    assert policy(torch.ones(2), Context(both, 4)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(-1.0), "threshold must be a number >= 0, got -1.0"),
        (lambda: Fixed(math.nan), "got nan"),
        (lambda: Fixed(True), "got True"),
        (lambda: Fixed("1.0"), "got '1.0'"),
        (lambda: Decay(alpha=1.0), "alpha must be between 0 and 1, got 1.0"),
        (lambda: Decay(patience=0), "patience must be an integer >= 1, got 0"),
        (lambda: MovingAverage(window=5, warmup=6), "warmup must be at most window=5, got 6"),
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
    switch = start(POLICIES[-1])
    with pytest.raises(ValueError, match="Decay: expected state"):
        policy.load_state_dict(switch.state_dict())
    feed(other := start(POLICIES[-1]), [5.0, 5.0])
    broken = {**other.state_dict(), "1": {}}
    with pytest.raises(ValueError, match="Percentile: expected state"):
        switch.load_state_dict(broken)
    assert switch.state_dict()["0"]["hits"].tolist() == [0, 0]
