"""Agents for control tasks. Shapes: T steps, M members, E environments, O inputs, A actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Mean return of uniformly random actions: what a run that diverged scores.
RANDOM_RETURN = {"CartPole-v1": 22.0, "Acrobot-v1": -499.0, "LunarLander-v3": -178.0}


class ActorCritic(nn.Module):
    """Logits of a policy and a value from tanh layers: ``[..., O] -> [..., A], [...]``.

    Orthogonal weights with gains sqrt 2 (hidden), 0.01 (policy) and 1 (value), biases 0. Policy
    and value have a torso each, or, ``shared``, one between them.
    Source: Engstrom et al. 2020; Huang et al. 2022, *The 37 implementation details of PPO*.
    """

    def __init__(
        self,
        inputs: int,
        actions: int,
        *,
        seed: int,
        hidden: Sequence[int] = (64, 64),
        shared: bool = False,
    ) -> None:
        super().__init__()
        _positive(inputs=inputs, actions=actions, hidden=min(hidden, default=0))
        generator = torch.Generator().manual_seed(seed)
        self.actor_torso = _torso(inputs, hidden, generator)
        self.critic_torso = None if shared else _torso(inputs, hidden, generator)
        self.policy = _orthogonal(hidden[-1], actions, 0.01, generator)
        self.value = _orthogonal(hidden[-1], 1, 1.0, generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[..., A]`` and values ``[...]``."""
        features = self.actor_torso(x)
        seen = features if self.critic_torso is None else self.critic_torso(x)
        return self.policy(features), self.value(seen).squeeze(-1)


class QNetwork(nn.Module):
    """Values of all actions from ReLU layers: ``[..., O] -> [..., A]``.

    Weights and biases from U(-1/sqrt(inputs), 1/sqrt(inputs)), torch's own start for linear layers.
    """

    def __init__(
        self, inputs: int, actions: int, *, seed: int, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        _positive(inputs=inputs, actions=actions, hidden=min(hidden, default=0))
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList()
        for before, after in pairwise([inputs, *hidden, actions]):
            layer = nn.utils.skip_init(nn.Linear, before, after)
            for p in layer.parameters():
                nn.init.uniform_(p, -(before**-0.5), before**-0.5, generator=generator)
            self.layers.append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """One value an action."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def _positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")


def _torso(inputs: int, hidden: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *hidden]):
        layers += [_orthogonal(before, after, 2**0.5, generator), nn.Tanh()]
    return nn.Sequential(*layers)


def _orthogonal(inputs: int, outputs: int, gain: float, generator: torch.Generator) -> nn.Module:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    lam: float,
) -> Tensor:
    r"""Generalised advantage estimates ``[T, ...]`` of ``T`` steps from ``values [T + 1, ...]``.

    .. math:: A_t = \delta_t + \gamma \lambda (1 - e_t) A_{t+1}, \qquad
        \delta_t = r_t + \gamma (1 - d_t) V(s_{t+1}) - V(s_t)

    with :math:`d_t` where the episode terminated, :math:`e_t` where it terminated or was truncated:
    time running out says nothing about the state, so its value still counts. ``values[t + 1]`` must
    be of the state that step ``t`` led to, the last one of its episode included.
    Source: Schulman et al. 2016 (arXiv:1506.02438); Pardo et al. 2018 for the time limit.
    """
    if len(values) != len(rewards) + 1:
        raise ValueError(f"expected {len(rewards) + 1} values, got {len(values)}")
    delta = rewards + discount * values[1:].where(~terminated, 0.0) - values[:-1]
    keep = discount * lam * (~(terminated | truncated)).to(delta)
    advantages, running = torch.empty_like(delta), torch.zeros_like(delta[0])
    for t in reversed(range(len(rewards))):
        running = delta[t] + keep[t] * running
        advantages[t] = running
    return advantages


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of every member over its valid entries: ``[M, ...] -> [M]``; 0 where it has none."""
    weights = valid.to(x).flatten(1)
    total = x.where(valid, 0.0).flatten(1).sum(1)
    return total / weights.sum(1).clamp(min=1)


def normalised(advantages: Tensor, valid: Tensor) -> Tensor:
    """Every member's valid advantages to mean 0 and standard deviation 1: ``[M, ...]``."""
    shape = (-1, *[1] * (advantages.ndim - 1))
    centred = advantages - masked_mean(advantages, valid).view(shape)
    n = valid.flatten(1).sum(1)
    variance = masked_mean(centred.square(), valid) * n / (n - 1).clamp(min=1)
    return centred / (variance.sqrt() + 1e-8).view(shape)


@dataclass(frozen=True)
class PolicyLosses:
    """Mean policy loss, squared value error and entropy of every member, ``[M]`` each."""

    policy: Tensor
    value: Tensor
    entropy: Tensor

    def total(self, value_weight: float = 0.5, entropy_weight: float = 0.0) -> Tensor:
        """What is minimised: policy + value_weight * value - entropy_weight * entropy."""
        return self.policy + value_weight * self.value - entropy_weight * self.entropy


def policy_losses(
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    advantages: Tensor,
    returns: Tensor,
    valid: Tensor,
    *,
    old_log_probs: Tensor | None = None,
    clip_ratio: float = 0.2,
) -> PolicyLosses:
    r"""Losses of A2C, or of PPO where the log probabilities at sampling are given; ``[M, ...]`` in.

    A2C: :math:`-A \log\pi(a|s)`. PPO: :math:`-\min(\rho A, \mathrm{clip}(\rho, 1 \pm \epsilon) A)`
    with :math:`\rho = \pi(a|s) / \pi_{old}(a|s)`. Steps that are not valid count nowhere.
    Source: Mnih et al. 2016 (arXiv:1602.01783); Schulman et al. 2017 (arXiv:1707.06347).
    """
    log_p = F.log_softmax(logits, dim=-1)
    chosen = log_p.gather(-1, actions[..., None])[..., 0]
    if old_log_probs is None:
        gain = chosen * advantages
    else:
        ratio = (chosen - old_log_probs).exp()
        bounded = ratio.clamp(1 - clip_ratio, 1 + clip_ratio)
        gain = torch.minimum(ratio * advantages, bounded * advantages)
    return PolicyLosses(
        policy=-masked_mean(gain, valid),
        value=masked_mean((returns - values).square(), valid),
        entropy=masked_mean(-(log_p.exp() * log_p).sum(-1), valid),
    )


def sample(logits: Tensor, uniform: Tensor) -> Tensor:
    """Actions drawn by inverting the distribution function: ``[..., A], [...] -> [...]``.

    Numbers that are not finite give the first action: a member that diverged still acts.
    """
    below = logits.softmax(-1).cumsum(-1)[..., :-1]
    return (uniform[..., None] > below).sum(-1)


@dataclass(frozen=True)
class Step:
    """What one step gave, ``[M, E]`` each.

    ``valid`` is False where the step only started the next episode; ``returns`` is the sum of an
    episode's rewards where it ended, NaN elsewhere.
    """

    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    returns: Tensor


class Environments:
    """Copies of a Gymnasium environment for the members of an ensemble: ``each`` for every member.

    Every arm, a number in ``starts``, has a vector environment of its own with ``seeds * each``
    copies, seeded with that number: what one arm meets does not depend on which others run.
    ``observation [M, E, O]`` is always the state that the last step led to. Gymnasium resets an
    environment in the step *after* an episode's end and ignores that step's action
    (``AutoresetMode.NEXT_STEP``): such a step is not ``valid``.
    """

    def __init__(
        self,
        name: str,
        starts: Sequence[int],
        seeds: int,
        each: int,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        _positive(arms=len(starts), seeds=seeds, each=each)
        self.device = torch.device(device)
        self.vectors = [gymnasium.make_vec(name, num_envs=seeds * each) for _ in starts]
        mode = self.vectors[0].metadata["autoreset_mode"]
        if mode is not gymnasium.vector.AutoresetMode.NEXT_STEP:
            raise ValueError(f"{name}: autoreset mode {mode}, expected NEXT_STEP")
        space = self.vectors[0].single_action_space
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise ValueError(f"{name}: actions {space}, expected a Discrete space")
        self.shape = (len(starts) * seeds, each)
        self.inputs = int(np.prod(self.vectors[0].single_observation_space.shape or ()))
        self.actions = int(space.n)
        started = [v.reset(seed=start)[0] for v, start in zip(self.vectors, starts, strict=True)]
        self.observation = self._stack(started, torch.float32)
        self._ended = torch.zeros(self.shape, dtype=torch.bool, device=self.device)
        self._running = torch.zeros(self.shape, device=self.device)

    def step(self, actions: Tensor) -> Step:
        """Act everywhere, ``[M, E]``; moves ``observation`` on."""
        own = actions.cpu().numpy().reshape(len(self.vectors), -1)
        results = [vector.step(a) for vector, a in zip(self.vectors, own, strict=True)]
        self.observation = self._stack([r[0] for r in results], torch.float32)
        reward = self._stack([r[1] for r in results], torch.float32)
        terminated = self._stack([r[2] for r in results], torch.bool)
        truncated = self._stack([r[3] for r in results], torch.bool) & ~terminated
        valid, self._ended = ~self._ended, terminated | truncated
        self._running += reward
        returns = self._running.where(self._ended, torch.nan)
        self._running = self._running.where(~self._ended, 0.0)
        return Step(reward, terminated, truncated, valid, returns)

    def close(self) -> None:
        """Close all environments."""
        for vector in self.vectors:
            vector.close()

    def _stack(self, arrays: list[np.ndarray], dtype: torch.dtype) -> Tensor:
        stacked = torch.from_numpy(np.stack(arrays)).to(self.device, dtype)
        rest = stacked.shape[2:]
        return stacked.reshape(*self.shape, -1) if rest else stacked.view(self.shape)
