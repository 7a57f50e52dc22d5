"""Agents for control tasks. Shapes: T steps, M members, E environments, O inputs, A actions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ActorCritic(nn.Module):
    """Logits of a policy and a value from tanh layers: ``[..., O] -> [..., A], [...]``.

    Orthogonal weights with gains sqrt 2 (hidden), 0.01 (policy) and 1 (value), biases 0. Policy
    and value have two hidden layers each.
    Source: Engstrom et al. 2020; Huang et al. 2022, *The 37 implementation details of PPO*.
    """

    def __init__(
        self,
        inputs: int,
        actions: int,
        *,
        seed: int,
        width: int = 64,
    ) -> None:
        super().__init__()
        _positive(inputs=inputs, actions=actions, width=width)
        generator = torch.Generator().manual_seed(seed)
        self.actor_torso = _torso(inputs, width, generator)
        self.critic_torso = _torso(inputs, width, generator)
        self.policy = _orthogonal(width, actions, 0.01, generator)
        self.value = _orthogonal(width, 1, 1.0, generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[..., A]`` and values ``[...]``."""
        return self.policy(self.actor_torso(x)), self.value(self.critic_torso(x)).squeeze(-1)


def heads(weights: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What many ActorCritics say, their weights stacked: ``[M, B, O] -> [M, B, A], [M, B]``."""

    def layer(name: str, x: Tensor) -> Tensor:
        return torch.baddbmm(weights[f"{name}.bias"][:, None], x, weights[f"{name}.weight"].mT)

    def torso(name: str) -> Tensor:
        return layer(f"{name}.2", layer(f"{name}.0", x).tanh()).tanh()

    return layer("policy", torso("actor_torso")), layer("value", torso("critic_torso"))[..., 0]


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


def _torso(inputs: int, width: int, generator: torch.Generator) -> nn.Sequential:
    first = _orthogonal(inputs, width, 2**0.5, generator)
    return nn.Sequential(first, nn.Tanh(), _orthogonal(width, width, 2**0.5, generator), nn.Tanh())


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
