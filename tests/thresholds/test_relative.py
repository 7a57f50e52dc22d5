import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cliplab import (
    EMA,
    Clipper,
    Context,
    MovingAverage,
    Percentile,
    Queue,
    TargetRate,
    WeightRatio,
    ZScore,
)
from cliplab.thresholds import Known

small_percentiles = pytest.mark.filterwarnings("ignore:percentile is in percent")


def feed(policy, stream, parts=2):
    """Limits of a policy over a stream of sizes, the same for all parts."""
    active = torch.ones(parts, dtype=torch.bool)
    limits = []
    for step, size in enumerate(stream):
        sizes = torch.full((parts,), float(size))
        context = Context(active, step, measured=Known(total_norm=sizes.norm()))
        limits.append(policy(sizes, context).clone())
    return torch.stack(limits)


def start(make, parts=2):
    policy = make()
    policy.init(parts)
    return policy


def log_normal(steps, sigma=0.5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, generator=generator).mul(sigma).exp().tolist()


EQUIVARIANT = [
    lambda scale: MovingAverage(2.0, window=10, warmup=3),
    lambda scale: Percentile(30.0),
    lambda scale: Percentile(30.0, window=7),
    lambda scale: EMA(warmup=0),
    lambda scale: EMA(warmup=9, initial=scale),
    lambda scale: ZScore(warmup=5, eps=0.0),
    lambda scale: ZScore(warmup=5, response="mean", eps=0.0),
    lambda scale: ZScore(warmup=5, response="level"),
    lambda scale: Queue(length=10, initial=4.0 * scale),
]


@pytest.mark.parametrize("make", EQUIVARIANT)
@pytest.mark.parametrize("scale", [2.0**-20, 2.0, 2.0**30])
def test_limits_scale_with_the_sizes(make, scale):
    stream = log_normal(80)
    stream[40] *= 50.0
    plain = feed(start(lambda: make(1.0)), stream)
    scaled = feed(start(lambda: make(scale)), [size * scale for size in stream])
    assert torch.equal(scaled, plain * scale)


def test_moving_average_is_of_previous_sizes():
    policy = start(lambda: MovingAverage(2.0, window=2, warmup=1))
    assert feed(policy, [1.0, 3.0, 5.0, 100.0])[:, 0].tolist() == [math.inf, 2.0, 4.0, 8.0]


@small_percentiles
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


def test_percentile_costs_the_same_at_any_step():
    counts = {}
    for steps in (5000, 1_000_000):
        policy = start(lambda: Percentile(10.0), 1)
        feed(policy, log_normal(20), 1)
        state = dict(policy.state)
        state["count"] += steps
        state["bins"][:, 50, 3] += steps
        state["blocks"][:, 50] += steps
        policy.load_state_dict(state)
        with torch.profiler.profile(record_shapes=True) as profile:
            limit = feed(policy, [1.0], 1)
        counts[steps] = sum(event.count for event in profile.key_averages())
        expected = 1e-20 * 1.0099 ** (50 * 128 + 3.5)
        assert limit.item() == pytest.approx(expected, rel=1e-3)
    assert counts[5000] == counts[1_000_000]


@small_percentiles
@given(st.integers(1, 2000), st.floats(0, 100))
@example(1, 1.9999999999999858)
def test_percentile_beyond_the_exact_range_is_a_size_seen(seed, percentile):
    sizes = log_normal(60, 3.0, seed)
    policy = start(lambda: Percentile(percentile), 1)
    policy.exact_sizes = 8
    policy.init(1)
    limits = feed(policy, sizes, 1)[:, 0].tolist()
    orders = [
        max(percentile - 1e-5, 0),
        percentile,
        min(percentile + 1e-5, 100),
    ]  # rounding
    for t in range(8, 60):
        lower = np.percentile(np.float32(sizes[: t + 1]), orders, method="lower")
        assert any(limits[t] == pytest.approx(one, rel=5e-3) for one in lower)


def test_percentile_has_a_state_of_constant_size():
    policy = start(lambda: Percentile(10.0), 1)
    before = {name: tensor.shape for name, tensor in policy.state.items()}
    policy.exact_sizes = 8
    feed(policy, log_normal(30), 1)
    assert {name: tensor.shape for name, tensor in policy.state.items()} == before


def test_ema_holds_the_whole_gradient_in_the_warmup():
    policy = start(lambda: EMA(ratio=2.0, beta=0.5, warmup=2, initial=1.0))
    sizes = [torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.9]), torch.tensor([9.0, 9.0])]
    active = torch.tensor([True, True])
    limits = [
        policy(s, Context(active, t, measured=Known(total_norm=s.norm())))
        for t, s in enumerate(sizes)
    ]
    torch.testing.assert_close(limits[0], torch.tensor([0.6, 0.8]))
    assert limits[1].tolist() == [math.inf, math.inf]
    torch.testing.assert_close(limits[2], torch.tensor([0.6, 1.6]))
    torch.testing.assert_close(policy.state["gamma"], torch.tensor([0.45, 1.2]))


def test_ema_recovers_from_a_gradient_of_zero():
    limits = feed(start(lambda: EMA(warmup=2)), [0.0, 0.0, 0.0, 0.5, 0.5])
    assert (limits[-2:] >= 0.5).all()


def test_zscore_lets_a_larger_spike_take_a_smaller_step_only_by_reciprocal():
    stream = log_normal(40, 0.1)
    steps = {}
    for response in ("reciprocal", "mean", "level"):
        spikes = [
            feed(start(lambda r=response: ZScore(response=r)), [*stream, s]) for s in (3.0, 30)
        ]
        steps[response] = [limits[-1, 0].item() for limits in spikes]
    assert steps["reciprocal"][1] < steps["reciprocal"][0]
    assert steps["mean"][0] == steps["mean"][1]
    assert steps["level"][0] == steps["level"][1]
    assert steps["mean"][0] < steps["reciprocal"][1] < steps["level"][0]


def test_zscore_that_does_not_learn_spikes_keeps_its_statistics():
    stream = log_normal(40, 0.1)
    policy, reference = (start(lambda: ZScore(learn_spikes=False)) for _ in range(2))
    feed(policy, [*stream, 50.0, 50.0])
    feed(reference, stream)
    for name in ("mean", "std"):
        assert torch.equal(policy.state[name], reference.state[name])


def test_the_queue_forgets_its_seed():
    limits = feed(start(lambda: Queue(length=5)), [1.0] * 200)
    assert limits[0, 0] == 4500.0
    assert limits[-1, 0].item() == pytest.approx(1.5)


def test_weights_that_begin_at_zero_move():
    policy = start(lambda: WeightRatio(ratio=0.01, eps=1e-3))
    weights = torch.tensor([0.0, 5.0])
    context = Context(torch.tensor([True, True]), measured=Known(weight_norms=weights))
    torch.testing.assert_close(policy(torch.ones(2), context), torch.tensor([1e-5, 0.05]))


def test_an_autoclipped_run_goes_on_after_a_bad_step():
    weight = torch.nn.Parameter(torch.zeros(2))
    clipper = Clipper([weight], Percentile(50), nonfinite="skip")
    for size in (1.0, math.nan, math.inf, 3.0):
        weight.grad = torch.tensor([size, 0.0])
        report = clipper.clip()
    assert report.threshold == 2.0
    assert weight.grad.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_target_rate_reaches_the_wanted_clip_frequency(rate, scale):
    stream = [size * scale for size in log_normal(4000)]
    policy = start(lambda: TargetRate(rate, initial=scale))
    limits = feed(policy, stream)[:, 0]
    hits = torch.tensor(stream) > limits
    drift = (limits[-1] / limits[0]).log().item() / (0.2 * len(stream))
    assert hits.float().mean().item() == pytest.approx(rate + drift, abs=1e-3)
    late = hits[1000:].float().mean().item()
    assert late == pytest.approx(rate, abs=0.005)
    quantile = torch.tensor(stream).quantile(1 - rate)
    assert limits[1000:].median() == pytest.approx(quantile.item(), rel=0.3)


@pytest.mark.parametrize("factor", [3.0, 1 / 3])
def test_target_rate_follows_a_level_shift(factor):
    stream = log_normal(4000, sigma=0.3)
    stream[2000:] = [size * factor for size in stream[2000:]]
    limits = feed(start(lambda: TargetRate(0.1)), stream)[:, 0]
    before, after = limits[1000:2000].mean(), limits[2200:].mean()
    assert (after / before).item() == pytest.approx(factor, rel=0.1)
    assert (torch.tensor(stream) > limits)[2200:].float().mean().item() == pytest.approx(
        0.1, abs=0.01
    )


def test_target_rate_is_never_stuck_at_zero():
    policy = start(lambda: TargetRate(0.5, speed=2.0, low=1e-3))
    feed(policy, [0.0] * 300)
    assert feed(policy, [1.0] * 20)[-1, 0] > 0.3
