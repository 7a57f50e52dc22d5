"""What the docstrings of the policies promise, for any parameters: against plain numbers."""

import math

import pytest
import reference
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from policies import context_of

from cliplab import (
    EMA,
    RMS,
    AfterWarmup,
    Bounded,
    Decay,
    MovingAverage,
    Percentile,
    Queue,
    RobustSpike,
    Scheduled,
    SpikeSkip,
    Switch,
    TargetRate,
    WeightRatio,
    ZScore,
)
from cliplab.thresholds import Context, Known

SIZES = st.lists(st.floats(2.0**-10, 2.0**10, width=32), min_size=1, max_size=40)
SHARES = st.floats(0.0, 0.999)
SCALES = st.floats(1e-3, 1e3)
COUNTS = st.integers(1, 12)


def limits_of(policy, stream, **context):
    """Limits of a one-part policy over a stream, as numbers."""
    policy.init(1)
    return list(follow(policy, stream, **context))


def follow(policy, stream, **context):
    for step, size in enumerate(stream):
        sizes = torch.tensor([size], dtype=torch.float32)
        fallback = {"measured": Known(total_norm=sizes[0])}
        yield float(policy(sizes, Context(torch.tensor([True]), step, **(fallback | context))))


def near(value):
    return pytest.approx(value, rel=1e-4)


# Averages


@given(SIZES, SCALES, COUNTS, COUNTS)
def test_a_moving_average_is_the_mean_of_the_last_raw_sizes(stream, multiplier, window, warmup):
    assume(warmup <= window)
    limits = limits_of(MovingAverage(multiplier, window, warmup), stream)
    rule = reference.MovingAverage(multiplier, window, warmup)
    for n, limit in zip(stream, limits, strict=True):
        assert limit == near(rule.limit(n, {}))


@given(SIZES, st.floats(0.5, 5), SHARES, st.integers(0, 9), SCALES)
def test_an_ema_learns_the_clipped_sizes(stream, ratio, beta, warmup, initial):
    assume(all(abs(n - initial) > 1e-5 * n for n in stream))  # else rounding decides
    limits = limits_of(EMA(ratio, beta, warmup, initial), stream)
    gamma = 0.0
    for t, (n, limit) in enumerate(zip(stream, limits, strict=True)):
        gamma = gamma or n
        expected = ratio * gamma
        if t < warmup:
            expected = initial if n > initial else math.inf
        assert limit == pytest.approx(expected, rel=1e-4, abs=1e-6 * max(stream))
        learnt = min(n, limit)
        gamma = min(gamma, learnt) if t < warmup else beta * gamma + (1 - beta) * learnt


@given(
    SIZES,
    SHARES,
    st.floats(0.1, 10),
    COUNTS,
    st.sampled_from(["reciprocal", "mean", "level"]),
    st.floats(0.1, 20),
    st.booleans(),
    st.sampled_from([0.0, 1e-6, 0.1]),
)
@example([1.0, 2.0, 1.0, 2.0, 9.0, 1.0], 0.5, 1.0, 4, "reciprocal", 20.0, True, 1e-6)
def test_a_zscore_learns_the_clipped_sizes(stream, alpha, z, warmup, response, factor, learns, eps):
    policy = ZScore(alpha, z, warmup, response, factor, learns, eps)
    limits = limits_of(policy, stream)
    mean = var = 0.0
    for t, (n, limit) in enumerate(zip(stream, limits, strict=True)):
        if t < warmup:
            assert limit == math.inf
            mean, var = numpy_like(stream[: t + 1])
            continue
        scale = math.sqrt(var) + (0 if response == "level" else eps)
        level = mean + z * scale
        assume(abs(n - level) > 1e-3 * level)  # else rounding decides what a spike is
        expected = level
        if n > level and response == "mean":
            expected = mean
        elif n > level and response == "reciprocal":
            expected = factor * (mean + z**2 * math.sqrt(var) * scale / (n - mean))
        assert limit == pytest.approx(expected, rel=1e-3)
        if n <= level or learns:
            x = min(n, expected)
            change = x - mean
            mean += (1 - alpha) * change
            var = alpha * var + (1 - alpha) * (x - mean) ** 2
    assert float(policy.state["mean"]) == pytest.approx(mean, rel=1e-3)
    assert float(policy.state["std"]) == pytest.approx(math.sqrt(var), rel=5e-3, abs=1e-3 * mean)


def numpy_like(sizes):
    """Mean and biased variance."""
    mean = math.fsum(sizes) / len(sizes)
    return mean, math.fsum((n - mean) ** 2 for n in sizes) / len(sizes)


@given(SIZES, COUNTS, SCALES, st.floats(0, 5), st.floats(1e-3, 1e6))
@example([1e-30, 3e-30] * 9, 4, 1.5, 2.0, 1e-30)
@example([1e30, 3e30] * 9, 4, 1.5, 2.0, 1e30)
@example([1.0] * 9, 4, 1.5, 0.0, 1e30)
def test_a_queue_holds_the_last_clipped_sizes(stream, length, multiplier, z, initial):
    held = [initial]
    for n, limit in zip(
        stream, limits_of(Queue(length, multiplier, z, initial), stream), strict=True
    ):
        mean, var = numpy_like(held)
        assert limit == pytest.approx(multiplier * mean + z * math.sqrt(var), rel=1e-3)
        held = [*held, min(n, limit)][-length:]


# Steered


@given(SIZES, SCALES, st.floats(0.01, 0.99), COUNTS, SCALES)
def test_decay_lowers_after_hits_in_a_row_and_never_rises(stream, initial, alpha, patience, floor):
    limits = limits_of(Decay(initial, alpha, patience, floor), stream)
    limit, hits = initial, 0
    for n, found in zip(stream, limits, strict=True):
        assert found == near(limit)
        hits = hits + 1 if n > found else 0
        if hits == patience:
            hits, limit = 0, min(limit, max(alpha * found, floor))


@pytest.mark.slow
@given(
    st.integers(0, 999),
    st.floats(0.001, 0.999),
    st.floats(1e-3, 20),
    st.floats(1e-2, 1e2),
)
def test_the_clip_frequency_is_off_by_the_drift_of_the_limit(seed, rate, speed, initial):
    draw = torch.Generator().manual_seed(seed)
    stream = torch.randn(300, generator=draw).exp().tolist()
    policy = TargetRate(rate, initial, speed, low=1e-36, high=1e36)
    limits = limits_of(policy, stream)
    assume(min(limits) > 1e-36 and max(limits) < 1e36)
    hits = sum(n > c for n, c in zip(torch.tensor(stream).tolist(), limits, strict=True))
    last = float(policy.state["limit"])
    drift = math.log(last / limits[0]) / (speed * len(stream))
    assert hits / len(stream) - rate == pytest.approx(drift, abs=1.2e-7 / speed + 1e-6)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-9, 1e9))
def test_a_target_rate_moves_both_ways_or_is_refused(rate, speed):
    try:
        policy = TargetRate(rate, 1.0, speed)
    except ValueError as error:
        assert "speed must be between" in str(error)  # noqa: PT017
        assert not 1e-6 / min(rate, 1 - rate) < speed < 80
        return
    first, second = limits_of(policy, [9.0, 9.0])
    assert second > first
    first, second = limits_of(policy, [0.5, 0.5])
    assert second < first


# Percentile


class Short(Percentile):
    exact_sizes = 8


@given(
    st.lists(st.floats(2.0**-60, 2.0**120, width=32), min_size=9, max_size=30),
    st.floats(0, 100).filter(lambda p: p == 0 or p >= 1),
)
@example([1.0] * 9, 100.0)
def test_a_histogram_gives_the_lower_neighbouring_size_within_half_a_percent(stream, percentile):
    limits = limits_of(Short(percentile), stream)
    for t in range(8, len(stream)):
        lower = sorted(stream[: t + 1])[int(t * (percentile / 100))]
        assert limits[t] == pytest.approx(lower, rel=5e-3)


@given(st.lists(st.sampled_from([0.0, 1e-38, 1e-21]), min_size=9, max_size=20))
def test_sizes_below_the_histogram_count_as_its_lower_edge(stream):
    assert limits_of(Short(50), stream)[-1] == pytest.approx(1e-20, rel=1e-2)


@pytest.mark.parametrize("percentile", [10.0, 50.0, 33.3, 70.0, 99.9, 100.0])
@pytest.mark.parametrize("count", [2**24 + 3, 2**24 + 11, 2**26 + 7, 2**30 + 1])
def test_ranks_are_right_beyond_what_single_precision_counts(percentile, count):
    policy = Percentile(percentile)
    policy.init(1)
    rank = int((count - 1) * (percentile / 100))
    bins, index = policy.state["bins"], 50 * 128
    bins[0, 50, 0], bins[0, 51, 0] = rank + 1, count - rank - 1  # the last of the lower ones
    policy.state["blocks"].copy_(bins.sum(dim=2))
    limit = policy._estimate(policy.state, torch.tensor([count]))
    assert float(limit) == pytest.approx(1e-20 * 1.0099 ** (index + 0.5), rel=1e-3)


@pytest.mark.parametrize("percentile", [10.0, 90.0])
def test_ranks_that_single_precision_counted_right_stay(percentile):
    count = torch.arange(4097, 2**21)
    rank = ((count - 1).double() * (percentile / 100)).long()
    assert torch.equal(rank, (count - 1) * int(percentile) // 100)


@given(st.integers(0, 999), st.floats(1, 100))
def test_a_long_window_is_exact_too(seed, percentile):
    draw = torch.Generator().manual_seed(seed)
    sizes = 10 ** (4 * torch.rand(5000, generator=draw, dtype=torch.float64)).float()
    policy = Percentile(percentile, window=5000)
    policy.init(1)
    limit = policy._exact(sizes.sort().values[None], torch.tensor([5000]))
    expected = sizes.double().quantile(percentile / 100)
    assert float(limit) == pytest.approx(float(expected), rel=1e-5)


# Shape, fixed, wrappers


@given(st.floats(0, 1e3), st.integers(0, 2**40))
def test_rms_is_the_root_of_the_number_of_entries(c, entries):
    measured = Known(numels=torch.tensor([entries]))
    limit = next(follow(RMS(c), [1.0], measured=measured))
    assert limit == pytest.approx(c * math.sqrt(max(entries, 1)), rel=1e-5, abs=1e-40)


@pytest.mark.parametrize("c", [math.inf, 1e39])
@pytest.mark.parametrize("entries", [0, 1, 10**9])
def test_no_rms_is_no_limit(c, entries):
    assert next(follow(RMS(c), [1.0], measured=Known(numels=torch.tensor([entries])))) == math.inf


@given(SCALES, st.sampled_from([0.0, 1e-3, 2.0]), st.floats(0, 1e6))
def test_a_weight_ratio_is_a_share_of_the_weights(ratio, eps, weight):
    measured = Known(weight_norms=torch.tensor([weight]))
    limit = next(follow(WeightRatio(ratio, eps), [1.0], measured=measured))
    assert limit == pytest.approx(ratio * max(weight, eps), rel=1e-5)


@given(SIZES, st.floats(0, 100), st.floats(0, 100) | st.just(math.inf))
def test_bounds_hold_and_the_inner_policy_is_not_told(stream, low, high):
    assume(low <= high)
    inner = limits_of(Queue(3, initial=5.0), stream)
    limits = limits_of(Bounded(Queue(3, initial=5.0), low, high), stream)
    assert limits == pytest.approx([min(max(n, low), high) for n in inner])


@given(SIZES, COUNTS)
def test_a_warm_up_is_counted_in_steps_that_count(stream, steps):
    limits = limits_of(AfterWarmup(MovingAverage(1.0, 3, 1), steps, until=0.5), stream)
    own = limits_of(MovingAverage(1.0, 3, 1), stream)
    assert limits == [0.5] * min(steps, len(stream)) + own[steps:]


@given(st.lists(st.booleans(), min_size=1, max_size=6), SIZES)
def test_a_switch_asks_each_policy_about_its_own_parts(mask, stream):
    other = [not own for own in mask]
    policy = Switch([(mask, Decay(1.0, 0.5, 1)), (other, Queue(3))])
    policy.init(len(mask))
    decay, queue = limits_of(Decay(1.0, 0.5, 1), stream), limits_of(Queue(3), stream)
    for step, size in enumerate(stream):
        sizes = torch.full((len(mask),), size)
        limits = policy(sizes, context_of(sizes, step=step)).tolist()
        assert limits == [decay[step] if own else queue[step] for own in mask]


@given(SIZES, st.floats(0, 1e6))
def test_a_schedule_is_asked_at_every_step(stream, scale):
    limits = limits_of(Scheduled(lambda step, lr: scale * step * lr), stream, lr=0.5)
    assert limits == pytest.approx([scale * step * 0.5 for step in range(len(stream))])


# Robust


def until_accepted(policy, old, level, of="size"):
    """Steps at a level above its limit until one is let through, after a stream of old ones."""
    limits_of(policy, old)
    for skipped in range(len(old) + 999):
        limit = next(follow(policy, [level]))
        if level <= limit * (1 + 1e-6):
            return skipped
    raise AssertionError("never accepted")


WINDOWS = st.integers(1, 70)
OLD = st.integers(0, 999)
LEVELS = st.floats(1.05, 1e30)


def old_sizes(seed, count):
    draw = torch.Generator().manual_seed(seed)
    return (1 + 0.01 * torch.rand(count, generator=draw)).tolist()


@pytest.mark.slow
@given(
    WINDOWS,
    st.floats(0.01, 1.0),
    st.floats(1.35, 20),
    st.floats(1e-6, 0.1),
    LEVELS,
    OLD,
    st.floats(0, 3),
)
@example(7, 0.5, 6.0, 0.02, 50.0, 0, 3.0)
@example(63, 0.5, 6.0, 0.02, 50.0, 0, 3.0)
@example(7, 0.6, 6.0, 0.02, 50.0, 0, 0.6)
def test_a_level_is_accepted_after_a_quarter_of_any_window(
    window, share, sigmas, floor, level, seed, filled
):
    warmup = max(1, int(share * window))
    policy = SpikeSkip(sigmas, window, warmup, floor)
    old = old_sizes(seed, max(warmup, int(filled * window)))
    assert until_accepted(policy, old, level) <= window // 4 + 1


@pytest.mark.slow
@given(WINDOWS, st.floats(0.01, 1.35), st.floats(1e-6, 0.1), LEVELS, OLD)
def test_with_few_sigmas_a_level_is_accepted_after_half_of_the_window(
    window, sigmas, floor, level, seed
):
    policy = SpikeSkip(sigmas, window, max(1, window // 2), floor)
    assert until_accepted(policy, old_sizes(seed, 2 * window), level) <= window // 2 + 1


@pytest.mark.slow
@given(WINDOWS, st.floats(1.35, 20), st.floats(-50, 50), st.floats(0.5, 1e6), OLD)
def test_a_level_of_the_loss_is_accepted_after_a_quarter_of_any_window(
    window, sigmas, loss, rise, seed
):
    policy = SpikeSkip(sigmas, window, max(1, window // 2), 1e-3)
    policy.init(1)
    for jitter in old_sizes(seed, 2 * window):
        next(follow(policy, [1.0], loss=torch.tensor(loss * jitter)))
    level = torch.tensor(loss + abs(loss) * 0.02 + rise)
    skipped = 0
    while next(follow(policy, [1.0], loss=level)) == 0:
        skipped += 1
    assert skipped <= window // 4 + 1


@pytest.mark.slow
@given(WINDOWS, st.floats(0.05, 20), st.floats(1e-3, 2), st.floats(0.1, 100), LEVELS, OLD)
@example(12, 3.0, 0.35, 16.0, 1e6, 0)
@example(64, 1.5, 0.35, 16.0, 1e6, 0)
@example(8, 3.0, 0.35, 16.0, 1e6, 0)
@example(64, 3.0, 0.35, 16.0, 1e30, 0)
@example(63, 3.0, 0.35, 16.0, 1e30, 0)
def test_a_level_is_followed_after_a_quarter_or_a_half_of_the_window(
    window, deviations, spread, prior, level, seed
):
    policy = RobustSpike(deviations, window, spread, prior)
    n = window - 1
    soon = deviations * n >= 1.35 * (prior + n)
    steps = until_accepted(policy, old_sizes(seed, 2 * window), level)
    assert steps <= (window // 4 if soon else window // 2) + 1


@pytest.mark.slow
@given(
    WINDOWS,
    st.sampled_from(["robust", "skip"]),
    st.floats(100, 1e30),
    st.floats(1, 1e6),
    st.integers(1, 200),
    OLD,
)
def test_a_run_of_spikes_up_to_a_quarter_of_what_is_held_does_not_enter_by_its_size(
    window, kind, spike, factor, before, seed
):
    make = {"robust": lambda: RobustSpike(3.0, window), "skip": lambda: SpikeSkip(6.0, window, 1)}
    run = min(window, before) // 4
    old = old_sizes(seed, before)
    found = []
    for size in (spike, min(spike * factor, 3e38)):
        policy = make[kind]()
        found.append(limits_of(policy, [*old, *[size] * run])[-1:])
        found[-1].append(next(follow(policy, [1.0])))
    assert found[0] == found[1]
    assert found[0][1] < 100


@given(st.floats(1e-30, 50), WINDOWS, st.floats(1e-30, 2), st.floats(1e-3, 100), SIZES)
def test_the_first_size_meets_no_limit_and_a_constant_stream_none_that_binds(
    deviations, window, spread, prior, stream
):
    limits = limits_of(RobustSpike(deviations, window, spread, prior), [stream[0]] * 20)
    assert limits[0] == math.inf
    assert min(limits) >= stream[0] * (1 - 1e-6)


@given(WINDOWS, COUNTS, st.floats(1e-30, 10), st.floats(1e-30, 1), SIZES)
def test_there_is_no_limit_before_any_warm_up(window, warmup, sigmas, floor, stream):
    assume(warmup <= window)
    limits = limits_of(SpikeSkip(sigmas, window, warmup, floor), stream)
    assert limits[:warmup] == [math.inf] * min(warmup, len(stream))
    assert all(math.isfinite(limit) for limit in limits[warmup:])
