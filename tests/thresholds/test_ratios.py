"""Limits from the loss, the learning rate and the weights: what their docstrings promise."""

import math

import pytest
import torch

from cliplab import Context, Deviations, LossRatio, RateScaled, Surprise, TrustRatio
from cliplab.thresholds import Known

ACTIVE = torch.tensor([True, True])
SIZES = torch.tensor([8.0, 2.0])


def ask(policy, **context):
    return policy(SIZES, Context(ACTIVE, **context)).tolist()


def started(policy):
    policy.init(2)
    return policy


def losses(policy, values):
    return [ask(policy, loss=torch.tensor(value)) for value in values]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_has_limit_0_and_is_not_learnt(bad):
    for first in ([], [2.0]):
        poisoned, reference = started(LossRatio()), started(LossRatio())
        found = losses(poisoned, [*first, bad, 1.0, 3.0])
        assert found[len(first)] == [0.0, 0.0]
        assert found[len(first) + 1 :] == losses(reference, [*first, 1.0, 3.0])[len(first) :]


def test_a_loss_at_most_its_mean_or_a_mean_not_above_0_is_no_limit():
    assert losses(started(LossRatio()), [2.0, 1.0, 1.5]) == [[math.inf] * 2] * 3
    assert losses(started(LossRatio()), [-2.0, 3.0]) == [[math.inf] * 2] * 2


def test_a_higher_loss_divides_by_its_ratio_to_the_power():
    first, second = losses(started(LossRatio(power=3.0)), [1.0, 2.0])
    assert first == [math.inf] * 2
    assert second == pytest.approx([1.0, 0.25])


def test_a_spike_of_the_loss_is_not_learnt():
    with_spike, without = started(LossRatio(spike=1.5)), started(LossRatio(spike=1.5))
    assert losses(with_spike, [1.0, 1.6, 1.2])[-1] == losses(without, [1.0, 1.2])[-1]


def test_the_mean_moves_by_two_over_span_and_one():
    policy = started(LossRatio(span=3))
    losses(policy, [1.0, 2.0])
    assert policy.state["mean"].tolist() == [1.5, 1.5]


@pytest.mark.parametrize("loss", [torch.ones(3), torch.ones(0)])
def test_a_loss_of_another_shape_is_refused(loss):
    with pytest.raises(ValueError, match="loss must be a scalar, got shape"):
        ask(started(LossRatio()), loss=loss)


def test_the_rate_is_the_first_above_0_and_its_ratio_1e_7_at_least():
    policy = started(RateScaled(3.0))
    assert ask(policy, lr=0.0) == [3.0, 3.0]
    assert ask(policy, lr=0.4) == [3.0, 3.0]
    assert ask(policy, lr=torch.tensor(0.1)) == pytest.approx([6.0, 6.0])
    assert ask(policy, lr=1.6) == pytest.approx([1.5, 1.5])
    for tiny in (4e-8, 1e-12, 0.0):
        assert ask(policy, lr=tiny) == pytest.approx([3.0 / math.sqrt(1e-7)] * 2)


@pytest.mark.parametrize("lr", [None, math.nan])
def test_no_learning_rate_is_said(lr):
    with pytest.raises(ValueError, match="the learning rate, which is not known: attach"):
        ask(started(RateScaled()), lr=lr)


def test_weights_of_norm_0_are_free():
    known = Known(weight_norms=torch.tensor([0.0, 3.0]))
    assert ask(started(TrustRatio(0.5)), measured=known) == [math.inf, 1.5]


def test_a_surprise_of_at_most_1_is_no_limit():
    known = Known(surprise=torch.tensor([4.0, 1.0]))
    assert ask(started(Surprise()), measured=known) == [2.0, math.inf]
    with pytest.raises(ValueError, match='target="update"'):
        ask(started(Surprise()))


def test_deviations_of_a_constant_stream_are_1e_6_at_least():
    policy = started(Deviations(k=1000.0, window=4, warmup=2))
    limits = [ask(policy) for _ in range(6)]
    assert limits[:2] == [[math.inf] * 2] * 2
    for limit in limits[2:]:
        assert limit == pytest.approx([8.001, 2.001], rel=1e-6)


def test_deviations_needs_a_window_for_its_warm_up():
    with pytest.raises(ValueError, match="warmup must be at most window=4, got 5"):
        Deviations(window=4, warmup=5)
