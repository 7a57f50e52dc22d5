import copy
import io
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cliplab import Clipper, Context
from cliplab.thresholds import RobustSpike, SpikeSkip

POLICIES = [RobustSpike, SpikeSkip, lambda: SpikeSkip(window=8, warmup=2)]
both = pytest.mark.parametrize("make", POLICIES)
finite_sizes = st.lists(st.floats(0.0625, 1024, width=32), min_size=1, max_size=40)


def follow(policy, stream, losses=None, init=True):
    """Limits of a policy over sizes ``[steps]`` or ``[steps, parts]``."""
    stream = torch.as_tensor(stream, dtype=torch.float32)
    stream = stream if stream.ndim > 1 else stream[:, None]
    if init:
        policy.init(stream.shape[1])
    active = torch.ones(stream.shape[1], dtype=torch.bool)
    limits = []
    for step, sizes in enumerate(stream):
        loss = None if losses is None else torch.as_tensor(losses[step])
        limits.append(policy(sizes, Context(active=active, step=step, loss=loss)))
    return torch.stack(limits).squeeze(1) if stream.shape[1] == 1 else torch.stack(limits)


def log_normal(steps, spread=0.3, seed=0, parts=None):
    draw = torch.Generator().manual_seed(seed)
    shape = (steps,) if parts is None else (steps, parts)
    return (spread * torch.randn(shape, generator=draw)).exp()


def clip_rate(stream, limits):
    return (stream > limits).float().mean().item()


# Both policies


@both
@settings(max_examples=12)
@given(finite_sizes, st.integers(-30, 30))
def test_scaling_a_stream_by_a_power_of_two_scales_the_limits(make, stream, power):
    scaled = torch.tensor(stream) * 2.0**power
    assert torch.equal(follow(make(), scaled), follow(make(), stream) * 2.0**power)


@both
@settings(max_examples=12)
@given(finite_sizes, st.floats(1e-3, 1e6), st.floats(1.0, 1e6))
def test_the_limit_does_not_depend_on_the_current_size(make, stream, size, factor):
    policy = make()
    follow(policy, stream)
    larger = copy.deepcopy(policy)
    assert torch.equal(
        follow(policy, [size], init=False), follow(larger, [size * factor], init=False)
    )


@both
@settings(max_examples=3)
@given(st.integers(0, 99), st.sampled_from([math.nan, math.inf, 0.0]))
def test_what_is_not_finite_and_zeros_leave_no_trace(make, seed, bad):
    clean = log_normal(80, seed=seed)
    where = torch.rand(80, generator=torch.Generator().manual_seed(seed)) < 0.2
    mixed = torch.stack([torch.where(where, bad, clean), clean], dim=1).flatten()
    keep = torch.stack([~where, torch.ones(80, dtype=torch.bool)], dim=1).flatten()
    assert torch.equal(follow(make(), mixed)[keep], follow(make(), mixed[keep]))


@both
def test_every_part_is_on_its_own(make):
    stream = log_normal(150, parts=3) * torch.tensor([1.0, 1e-3, 50.0])
    stream[::7, 1] = math.nan
    policy = make()
    together = follow(policy, stream)
    for part in range(3):
        torch.testing.assert_close(together[:, part], follow(make(), stream[:, part]))
    assert all(len(tensor) == 3 for tensor in policy.state_dict().values())


@both
@pytest.mark.parametrize("losses", [None, log_normal(160, seed=5)])
def test_a_resumed_stream_gives_the_same_bits(make, losses):
    stream = log_normal(160)
    whole = follow(make(), stream, losses)
    first, second = make(), make()
    follow(first, stream[:70], losses)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.init(1)
    second.load_state_dict(torch.load(file, weights_only=True))
    rest = None if losses is None else losses[70:]
    assert torch.equal(follow(second, stream[70:], rest, init=False), whole[70:])


@both
def test_the_state_does_not_grow(make):
    policy = make()
    follow(policy, log_normal(10))
    before = {name: tensor.shape for name, tensor in policy.state_dict().items()}
    follow(policy, log_normal(300), init=False)
    assert {name: tensor.shape for name, tensor in policy.state_dict().items()} == before


@both
def test_no_value_is_looked_at_off_the_host(make):
    policy, there = make(), torch.device("meta")  # looking at a value of which raises
    policy.init(2, there)
    active = torch.ones(2, dtype=torch.bool, device=there)
    loss = torch.ones((), device=there)
    for _ in range(3):
        limits = policy(torch.ones(2, device=there), Context(active=active, loss=loss))
    assert limits.device == there
    assert {tensor.device for tensor in policy.state.values()} == {there}


@both
@pytest.mark.parametrize("jitter", [0.0, 1e-6, 1e-3])
def test_a_constant_stream_with_a_jitter_meets_no_limit(make, jitter):
    jittered = 5.0 * (1 + jitter * torch.rand(200, generator=torch.Generator().manual_seed(1)))
    stream = torch.cat([torch.full((200,), 5.0), jittered])
    assert clip_rate(stream, follow(make(), stream)) == 0


@both
def test_how_large_spikes_are_does_not_enter_the_limits(make):
    stream = log_normal(260)
    spikes = torch.rand(260, generator=torch.Generator().manual_seed(2)) < 0.05
    limits = [follow(make(), torch.where(spikes, k * stream, stream)) for k in (1e2, 1e6)]
    late = torch.arange(260) >= 100
    torch.testing.assert_close(limits[0][late], limits[1][late])


@both
def test_zeros_alone_set_no_limit(make):
    limits = follow(make(), torch.zeros(300))
    assert torch.equal(limits, torch.full((300,), math.inf))


@pytest.mark.parametrize("name", ["deviations", "window", "spread", "prior"])
@pytest.mark.parametrize("value", [0, -1, math.nan, True, "3"])
def test_robust_arguments_are_checked(name, value):
    with pytest.raises(ValueError, match=name):
        RobustSpike(**{name: value})


@pytest.mark.parametrize("name", ["sigmas", "window", "warmup", "floor"])
@pytest.mark.parametrize("value", [0, -1, math.nan, True, "3"])
def test_skip_arguments_are_checked(name, value):
    with pytest.raises(ValueError, match=name):
        SpikeSkip(**{name: value})


def test_a_warmup_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="at most window=8"):
        SpikeSkip(window=8, warmup=9)


# RobustSpike


def test_a_larger_gradient_never_gives_a_smaller_step():
    weight = torch.nn.Parameter(torch.zeros(1))
    clipper = Clipper([weight], RobustSpike())
    for size in log_normal(80):
        weight.grad = size.reshape(1).clone()
        clipper.clip()
    after = []
    for size in torch.logspace(-1, 6, 50):
        trial = copy.deepcopy(clipper)
        trial.params[0].grad = size.reshape(1).clone()
        trial.clip()
        after.append(trial.params[0].grad.item())
    assert all(b >= a * (1 - 1e-6) for a, b in itertools.pairwise(after))
    assert after[-1] < 5


@pytest.mark.parametrize("before", [5, 30, 64, 300])
def test_a_new_level_is_followed_within_a_window(before):
    spreads = torch.tensor([0.05, 0.3, 0.6]).repeat_interleave(4)
    factors = torch.tensor([2.0**-10, 1 / 3, 3.0, 1024.0]).repeat(3)
    late = (torch.arange(before + 250) >= before)[:, None]
    steady = log_normal(before + 250, spreads, parts=12)
    stream = steady * torch.where(late, factors, 1.0)
    limits, twin = follow(RobustSpike(), torch.cat([stream, steady], dim=1)).split(12, dim=1)
    first = before + 64 // 4 + 1  # a quarter of the window is of the new level
    clipped, usual = (stream > limits)[first:].float(), (steady > twin).float()
    assert (clipped.mean(dim=0) < 0.02 + usual.mean(dim=0)).all()
    last = before + 64  # all of it
    torch.testing.assert_close(limits[last:], factors * twin[last:])


@settings(max_examples=12)
@given(st.floats(5.0, 1e6), st.integers(0, 50))
def test_bursts_are_clipped_to_the_end_and_leave_the_limit_as_it_was(factor, seed):
    steady = log_normal(200, seed=seed)
    stream = steady.clone()
    stream[100:106] *= factor
    limits, twin = follow(RobustSpike(), torch.stack([stream, steady], dim=1)).unbind(1)
    spikes = stream[100:106] > limits[100:106]
    assert spikes[stream[100:106] > 5].all()
    assert (limits <= 1.6 * twin).all()
    torch.testing.assert_close(limits[170:], twin[170:])


@pytest.mark.parametrize("factor", [50.0, 1e5])
def test_a_spike_in_the_warm_up_is_clipped_and_not_learnt(factor):
    at, parts = torch.arange(1, 12), torch.arange(11)
    stream = log_normal(40, 0.2, parts=11)
    stream[at, parts] *= factor
    limits = follow(RobustSpike(), stream)
    assert (limits[1:] < 5).all()
    clipped = stream > limits
    assert clipped[at, parts].all()
    assert (clipped.sum(dim=0) <= 2).all()


def test_a_spike_at_the_very_first_step_is_forgotten_at_once():
    stream = log_normal(40, 0.2)
    stream[0] = 1e6
    limits = follow(RobustSpike(), stream)
    assert limits[0] == math.inf
    assert (limits[2:] < 5).all()
    assert clip_rate(stream[2:], limits[2:]) == 0


@pytest.mark.parametrize("steps", [400, 1200])
def test_a_slow_trend_over_two_decades_is_not_clipped(steps):
    spreads = torch.tensor([0.0, 0.1, 0.4]).repeat(2)
    decades = torch.tensor([-2.0, 2.0]).repeat_interleave(3)
    trend = 10 ** (decades * torch.arange(steps)[:, None] / steps)
    stream = trend * log_normal(steps, spreads, parts=6)
    limits = follow(RobustSpike(), stream)
    assert ((stream > limits).float().mean(dim=0) < 0.02).all()
    if steps == 1200:
        assert (limits[30:] < 8 * trend[30:]).all()


def test_heavy_tails_are_clipped_rarely_and_still_bounded():
    t = torch.distributions.StudentT(2.0).sample((1000,))
    stream = (0.3 * t).exp()
    limits = follow(RobustSpike(), stream)
    assert clip_rate(stream, limits) < 0.06
    assert stream.max() > 20
    assert limits[20:].max() < 8


# SpikeSkip: the defects of the rule it takes after are listed one by one


def skips(stream, losses=None, policy=None):
    policy = SpikeSkip() if policy is None else policy
    return torch.as_tensor(stream) > follow(policy, stream, losses)


def test_a_nan_loss_skips_its_own_step_only():
    losses = log_normal(400, 0.1, seed=3)
    losses[200] = math.nan
    assert skips(log_normal(400, 0.1), losses).nonzero().flatten().tolist() == [200]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_not_learnt_and_skips_even_in_the_warm_up(bad):
    stream, losses = log_normal(301), log_normal(301, seed=3)
    without = torch.arange(301) != 20
    reference = follow(SpikeSkip(), stream[without], losses[without])
    losses[20] = bad
    limits = follow(SpikeSkip(), stream, losses)
    assert limits[20] == 0
    assert torch.equal(limits[without], reference)


@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_all_of_six_spikes_in_a_row_are_skipped(spread):
    stream = log_normal(300, spread)
    stream[200:206] *= 50
    assert skips(stream).nonzero().flatten().tolist() == list(range(200, 206))
    losses = log_normal(300, spread, seed=7)
    losses[200:206] *= 50
    assert skips(log_normal(300, spread), losses).nonzero().flatten().tolist() == list(
        range(200, 206)
    )


def test_a_constant_history_accepts_what_differs_in_the_last_digits():
    stream, losses = torch.full((200,), 3.0), torch.full((200,), -2.0)
    stream[150], losses[160] = 3.0 * (1 + 1e-6), -2.0 * (1 - 1e-6)
    assert not skips(stream, losses).any()


@pytest.mark.parametrize("factor", [1 / 3, 3.0, 1e4])
@pytest.mark.parametrize("before", [64, 200])
@pytest.mark.parametrize("of", ["sizes", "losses"])
def test_a_new_level_is_accepted_after_a_quarter_of_the_window(factor, before, of):
    late = torch.arange(before + 200) >= before
    shifted = log_normal(before + 200, 0.1, seed=1) * torch.where(late, factor, 1.0)
    steady = log_normal(before + 200, 0.1)
    skipped = skips(shifted) if of == "sizes" else skips(steady, shifted)
    assert int(skipped.sum()) <= 128 // 4 + 1
    assert not skipped[before + 128 // 4 + 1 :].any()
    assert bool(skipped.any()) == (factor > 1)


def test_clean_steps_are_hardly_ever_skipped():
    stream = log_normal(600, 0.2, parts=8)
    skipped = stream > follow(SpikeSkip(), stream, log_normal(600, 0.1, seed=9))
    assert skipped.float().mean() < 0.001


def test_there_is_no_limit_before_the_warm_up():
    limits = follow(SpikeSkip(window=32, warmup=10), log_normal(40))
    assert (limits[:10] == math.inf).all()
    assert (limits[10:] < 20).all()


def test_a_loss_of_several_values_is_refused():
    with pytest.raises(ValueError, match=r"scalar, got shape \(2,\)"):
        follow(SpikeSkip(), [1.0], [[1.0, 2.0]])


def test_losses_may_come_and_go():
    losses = log_normal(200, seed=4)
    policy = SpikeSkip()
    follow(policy, log_normal(200), losses)
    assert not (follow(policy, [1.0, 1.1], init=False) == 0).any()
    assert follow(policy, [1.0], [torch.tensor(90.0, requires_grad=True)], init=False) == 0


def test_through_the_optimizer_a_spike_moves_nothing():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    clipper = Clipper([weight], SpikeSkip(window=16, warmup=4), mode="skip", nonfinite="skip")
    clipper.attach(optimizer)
    for step, size in enumerate([*log_normal(20).tolist(), 50.0, math.nan, 60.0, 1.0]):
        before = weight.detach().clone()
        weight.grad = torch.tensor([size])
        optimizer.step()
        assert torch.equal(weight, before) == (step in (20, 21, 22))
