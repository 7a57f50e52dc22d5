import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cliplab.lab.models.agents import (
    ActorCritic,
    QNetwork,
    gae,
    heads,
    masked_mean,
    normalised,
    policy_losses,
    sample,
)

NO, YES = False, True


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_weights_are_orthogonal_with_the_published_gains():
    model = ActorCritic(6, 3, seed=0)
    for name, weight in model.named_parameters():
        if "bias" in name:
            assert not weight.any()
            continue
        gain = {"policy": 0.01, "value": 1.0}.get(name.split(".")[0], 2**0.5)
        small = weight if weight.shape[0] <= weight.shape[1] else weight.T
        expected = gain**2 * torch.eye(len(small))
        torch.testing.assert_close(small @ small.T, expected, atol=1e-5, rtol=1e-4)


def test_the_policy_starts_nearly_uniform_and_gives_one_value_a_state():
    logits, values = ActorCritic(4, 2, seed=1)(torch.randn(5, 7, 4, generator=generator(0)))
    assert logits.shape == (5, 7, 2)
    assert values.shape == (5, 7)
    assert (logits.softmax(-1) - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("kind", [ActorCritic, QNetwork])
def test_the_seed_decides_and_the_global_generator_is_left_alone(kind):
    before = torch.random.get_rng_state()
    one, same, other = (list(kind(4, 2, seed=s).parameters()) for s in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[0], other[0])


def test_heads_gives_every_member_its_own_output():
    models = [ActorCritic(4, 3, seed=s, width=8) for s in (1, 2)]
    stacked = {
        name: torch.stack([m.get_parameter(name) for m in models])
        for name, _ in models[0].named_parameters()
    }
    x = torch.randn(2, 6, 4, generator=generator(1))
    logits, values = heads(stacked, x)
    for m, model in enumerate(models):
        torch.testing.assert_close((logits[m], values[m]), model(x[m]))


def test_q_networks_start_as_torchs_own_layers_do():
    layers = QNetwork(40, 30, seed=0, hidden=(50,)).layers
    own = torch.nn.Linear(40, 50)
    for drawn, torchs in ((layers[0].weight, own.weight), (layers[0].bias, own.bias)):
        assert drawn.abs().max() <= 40**-0.5
        assert drawn.std().item() == pytest.approx(torchs.std().item(), rel=0.3)


def test_an_episode_by_hand():
    # Two steps, then the end: A_1 = 2 - 5, A_0 = 1 + 0.5 * 5 - 4 + 0.5 * 0.8 * A_1.
    rewards, values = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 5.0, 100.0])
    last, never = torch.tensor([NO, YES]), torch.tensor([NO, NO])
    found = gae(rewards, values, last, never, discount=0.5, lam=0.8)
    torch.testing.assert_close(found, torch.tensor([-0.5 + 0.4 * -3.0, -3.0]))
    # Cut off by the time limit instead, the value of the last state counts: A_1 = 2 + 50 - 5.
    found = gae(rewards, values, never, last, discount=0.5, lam=0.8)
    torch.testing.assert_close(found, torch.tensor([-0.5 + 0.4 * 47.0, 47.0]))
    # Still going at the end of the rollout: as if cut off.
    assert torch.equal(found, gae(rewards, values, never, never, discount=0.5, lam=0.8))


def brute_force(rewards, values, terminated, truncated, discount, lam):
    """The sum over k of (discount * lam)^k delta_{t+k}, up to the episode's end."""
    out = []
    for t in range(len(rewards)):
        total, weight = 0.0, 1.0
        for k in range(t, len(rewards)):
            following = 0.0 if terminated[k] else values[k + 1]
            total += weight * (rewards[k] + discount * following - values[k])
            weight *= discount * lam
            if terminated[k] or truncated[k]:
                break
        out.append(total)
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.booleans(), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_advantages_are_the_brute_force_sum(steps, discount, lam):
    rewards, values, terminated, truncated = zip(*steps, strict=True)
    values = [*values, 1.5]
    found = gae(
        torch.tensor(rewards, dtype=torch.float64),
        torch.tensor(values, dtype=torch.float64),
        torch.tensor(terminated),
        torch.tensor(truncated),
        discount=discount,
        lam=lam,
    )
    expected = brute_force(rewards, values, terminated, truncated, discount, lam)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_with_lambda_1_the_target_is_the_discounted_return():
    rewards, values = torch.rand(6, 3, generator=generator(0)), torch.zeros(7, 3)
    never = torch.zeros(6, 3, dtype=torch.bool)
    returns = gae(rewards, values, never, never, discount=0.9, lam=1.0)
    powers = 0.9 ** torch.arange(6.0)
    torch.testing.assert_close(returns[0], (powers[:, None] * rewards).sum(0))


def test_normalised_over_valid_entries_only():
    x = 5 + 3 * torch.randn(2, 4, 50, generator=generator(2))
    valid = torch.rand(2, 4, 50, generator=generator(3)) < 0.7
    out = normalised(x.where(valid, 1e6), valid)
    for m in range(2):
        own = out[m][valid[m]]
        assert own.mean().abs() < 1e-5
        assert own.std() == pytest.approx(1.0, abs=1e-5)
    everything = torch.ones_like(valid)
    torch.testing.assert_close(normalised(x, everything), normalised(3 * x + 7, everything))


def batch():
    g = generator(4)
    logits = torch.randn(2, 9, 3, generator=g, requires_grad=True)
    values = torch.randn(2, 9, generator=g, requires_grad=True)
    actions = torch.randint(3, (2, 9), generator=g)
    advantages, returns = torch.randn(2, 2, 9, generator=g)
    valid = torch.rand(2, 9, generator=g) < 0.6
    return logits, values, actions, advantages, returns, valid


def test_losses_are_those_of_torch_on_what_is_valid():
    logits, values, actions, advantages, returns, valid = batch()
    losses = policy_losses(logits, values, actions, advantages, returns, valid)
    for m in range(2):
        own = valid[m]
        chosen = torch.distributions.Categorical(logits=logits[m][own])
        log_prob = chosen.log_prob(actions[m][own])
        torch.testing.assert_close(losses.policy[m], -(log_prob * advantages[m][own]).mean())
        torch.testing.assert_close(losses.value[m], F.mse_loss(values[m][own], returns[m][own]))
        torch.testing.assert_close(losses.entropy[m], chosen.entropy().mean())
    total = losses.total(0.5, 0.01)
    torch.testing.assert_close(total, losses.policy + 0.5 * losses.value - 0.01 * losses.entropy)


def test_steps_that_are_not_valid_have_no_gradient():
    logits, values, actions, advantages, returns, valid = batch()
    spoiled = returns.where(valid, 1e9)
    losses = policy_losses(logits, values, actions, advantages, spoiled, valid)
    losses.total(0.5, 0.01).sum().backward()
    assert not values.grad[~valid].any()
    assert not logits.grad[~valid].any()
    assert values.grad[valid].all()


def test_ppo_is_a2c_at_the_sampling_policy_and_stops_outside_the_clip_range():
    logits, values, actions, advantages, returns, _ = batch()
    valid = torch.ones_like(advantages, dtype=torch.bool)
    old = F.log_softmax(logits.detach(), -1).gather(-1, actions[..., None])[..., 0]
    args = (values, actions, advantages, returns, valid)
    grads = [
        torch.autograd.grad(policy_losses(logits, *args, old_log_probs=o).policy.sum(), logits)[0]
        for o in (None, old)
    ]
    torch.testing.assert_close(*grads)
    # Where an advantage is positive and its action already 1.3 times as likely, nothing is gained.
    further = policy_losses(logits, *args, old_log_probs=old - math.log(1.3), clip_ratio=0.2)
    (grad,) = torch.autograd.grad(further.policy.sum(), logits)
    assert not grad[advantages > 0].any()
    assert grad[advantages < 0].abs().sum(-1).all()


def test_sampled_actions_have_the_policys_frequencies():
    logits = torch.tensor([0.3, -1.0, 1.2])
    drawn = sample(logits.expand(40_000, 3), torch.rand(40_000, generator=generator(5)))
    shares = torch.bincount(drawn, minlength=3) / 40_000
    torch.testing.assert_close(shares, logits.softmax(0), atol=0.01, rtol=0)
    assert sample(torch.full((4, 3), math.nan), torch.full((4,), 0.9)).tolist() == [0] * 4


def test_a_mean_of_nothing_is_zero():
    x = torch.full((2, 3), math.nan)
    valid = torch.tensor([[NO, NO, NO], [YES, NO, NO]])
    x[1, 0] = 4.0
    assert masked_mean(x, valid).tolist() == [0.0, 4.0]


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        ActorCritic(4, 2, seed=0, width=0)
    with pytest.raises(ValueError, match="actions must be at least 1, got 0"):
        QNetwork(4, 0, seed=0)
    with pytest.raises(ValueError, match="expected 4 values, got 3"):
        gae(torch.zeros(3), torch.zeros(3), *torch.zeros(2, 3).bool(), discount=1, lam=1)
