"""CartPole, Acrobot and LunarLander, as many copies for every run. M runs, E copies of each.

CartPole and Acrobot are Gymnasium's equations for all copies at once; LunarLander is Gymnasium's
own. What a run meets depends on its seed alone, not on which others run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["TASKS", "Control", "Step", "Task"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Physics(Protocol):
    """Copies of one task, ``[M, E]``."""

    def restart(self, mask: Mask, luck: Floats) -> None:
        """Begin a new episode where the mask says, from uniform numbers ``luck [M, E, 4]``."""

    def advance(self, actions: NDArray[np.int64], mask: Mask) -> tuple[Floats, Mask]:
        """Act where the mask says (elsewhere anything may happen): reward and termination."""

    def observe(self) -> Floats:
        """Observations ``[M, E, O]``."""


class CartPole:
    """A cart to be pushed left or right so that its pole stands; every step gives 1.

    Source: Barto, Sutton & Anderson 1983; Gymnasium's ``CartPole-v1``.
    """

    def __init__(self, seeds: Sequence[int], each: int) -> None:
        self.state = np.zeros((4, len(seeds), each))  # place, speed, angle, angular speed

    def restart(self, mask: Mask, luck: Floats) -> None:
        """All four within 0.05 of 0."""
        self.state[:, mask] = 0.1 * luck[mask].T - 0.05

    def advance(self, actions: NDArray[np.int64], mask: Mask) -> tuple[Floats, Mask]:
        """One Euler step of 0.02 s."""
        x, speed, angle, turn = self.state
        cos, sin = np.cos(angle), np.sin(angle)
        push = (np.where(actions == 1, 10.0, -10.0) + 0.05 * turn**2 * sin) / 1.1
        turning = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
        faster = push - 0.05 * turning * cos / 1.1
        self.state = np.stack(
            (x + 0.02 * speed, speed + 0.02 * faster, angle + 0.02 * turn, turn + 0.02 * turning)
        )
        over = (np.abs(self.state[0]) > 2.4) | (np.abs(self.state[2]) > math.radians(12))
        return np.ones(mask.shape), over

    def observe(self) -> Floats:
        """The state."""
        return np.moveaxis(self.state, 0, -1)


class Acrobot:
    """Two links; a torque at the joint is to swing the end up; every step but the last costs 1.

    Source: Sutton 1996 in the form of Sutton & Barto's book; Gymnasium's ``Acrobot-v1``.
    """

    def __init__(self, seeds: Sequence[int], each: int) -> None:
        self.state = np.zeros((4, len(seeds), each))  # two angles, two angular speeds

    def restart(self, mask: Mask, luck: Floats) -> None:
        """All four within 0.1 of 0: hanging down."""
        self.state[:, mask] = 0.2 * luck[mask].T - 0.1

    def advance(self, actions: NDArray[np.int64], mask: Mask) -> tuple[Floats, Mask]:
        """One Runge-Kutta step of 0.2 s."""
        torque, s, dt = actions.astype(np.float64) - 1, self.state, 0.2
        k1 = _swing(s, torque)
        k2 = _swing(s + dt / 2 * k1, torque)
        k3 = _swing(s + dt / 2 * k2, torque)
        k4 = _swing(s + dt * k3, torque)
        s = s + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        s[:2] = (s[:2] + math.pi) % (2 * math.pi) - math.pi
        limit = np.array([4 * math.pi, 9 * math.pi])[:, None, None]
        s[2:] = s[2:].clip(-limit, limit)
        self.state = s
        over = -np.cos(s[0]) - np.cos(s[0] + s[1]) > 1.0
        return np.where(over, 0.0, -1.0), over

    def observe(self) -> Floats:
        """Cosine and sine of both angles, both angular speeds."""
        one, two, *speeds = self.state
        return np.stack((np.cos(one), np.sin(one), np.cos(two), np.sin(two), *speeds), axis=-1)


def _swing(state: Floats, torque: Floats) -> Floats:
    """Derivatives of Acrobot's state: masses, lengths and moments 1, centres of mass at 1/2."""
    one, two, turn_one, turn_two = state
    cos, sin = np.cos(two), np.sin(two)
    d1 = 3.5 + cos
    d2 = 1.25 + 0.5 * cos
    phi2 = 4.9 * np.sin(one + two)
    phi1 = -0.5 * turn_two * sin * (turn_two + 2 * turn_one) + 14.7 * np.sin(one) + phi2
    ratio = d2 / d1
    second = (torque + ratio * phi1 - 0.5 * turn_one**2 * sin - phi2) / (1.25 - ratio * d2)
    return np.stack((turn_one, turn_two, -(d2 * second + phi1) / d1, second))


class LunarLander:
    """Gymnasium's ``LunarLander-v3`` (Box2D), one copy after the other."""

    def __init__(self, seeds: Sequence[int], each: int) -> None:
        made = [gymnasium.make("LunarLander-v3").unwrapped for _ in range(len(seeds) * each)]
        self.copies: list[Any] = made
        self.state = np.zeros((len(seeds), each, 8))
        self.seeds: list[int | None] = [1000 * seed + e for seed in seeds for e in range(each)]

    def restart(self, mask: Mask, luck: Floats) -> None:
        """The copy's own generator decides, seeded at its first episode."""
        for i in np.flatnonzero(mask):
            self.state.reshape(-1, 8)[i] = self.copies[i].reset(seed=self.seeds[i])[0]
            self.seeds[i] = None

    def advance(self, actions: NDArray[np.int64], mask: Mask) -> tuple[Floats, Mask]:
        """One step of 0.02 s."""
        rewards, over, flat = np.zeros(mask.shape), np.zeros(mask.shape, bool), actions.ravel()
        for i in np.flatnonzero(mask):
            seen, rewards.flat[i], over.flat[i], *_ = self.copies[i].step(int(flat[i]))
            self.state.reshape(-1, 8)[i] = seen
        return rewards, over

    def observe(self) -> Floats:
        """Place, speeds, angle, its speed, and whether each leg touches the ground."""
        return self.state


@dataclass(frozen=True)
class Task:
    """A task, its time limit, and two fixed ends of its returns."""

    physics: Any
    inputs: int
    actions: int
    limit: int  # steps of an episode
    random: float  # mean return of random actions (500 episodes)
    good: float  # the reward threshold that Gymnasium registers: the task counts as solved

    def regret(self, returns: Tensor) -> Tensor:
        """0 where the task is solved, 1 where it is played at random."""
        return (self.good - returns) / (self.good - self.random)


TASKS = {
    "CartPole": Task(CartPole, 4, 2, 500, random=22.0, good=475.0),
    "Acrobot": Task(Acrobot, 6, 3, 500, random=-499.0, good=-100.0),
    "LunarLander": Task(LunarLander, 8, 4, 1000, random=-178.0, good=200.0),
}


@dataclass(frozen=True)
class Step:
    """What one step gave, ``[M, E]`` each; not ``valid`` where it only began an episode."""

    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor


class Control:
    """Copies of a task for every run: ``observation [M, E, O]`` is what the last step led to.

    The step after an episode's end begins the next one, ignores its action and is not ``valid``:
    so the last state of an episode is seen, whose value counts where time ran out. ``latest
    [M, E]`` is the return of each copy's last whole episode, at first that of random actions.
    """

    def __init__(self, task: Task, seeds: Sequence[int], each: int) -> None:
        shape = (len(seeds), each)
        self.task, self.physics = task, task.physics(seeds, each)
        self.ended = np.ones(shape, dtype=bool)
        self.length = np.zeros(shape, dtype=np.int64)
        self.running = np.zeros(shape)
        self.latest = np.full(shape, task.random)
        self.observation = torch.zeros(*shape, task.inputs)

    def step(self, actions: Tensor, luck: Tensor) -> Step:
        """Act everywhere; ``luck [M, E, 4]``, uniform numbers, decides how episodes begin."""
        begins = self.ended
        valid = ~begins
        reward, terminated = self.physics.advance(actions.numpy(), valid)
        self.physics.restart(begins, luck.double().numpy())
        self.observation = torch.from_numpy(self.physics.observe()).float()
        reward, terminated = np.where(valid, reward, 0.0), terminated & valid
        self.length = np.where(valid, self.length + 1, 0)
        self.running = np.where(valid, self.running + reward, 0.0)
        truncated = (self.length >= self.task.limit) & ~terminated
        self.ended = terminated | truncated
        self.latest = np.where(self.ended, self.running, self.latest)
        found = (reward.astype(np.float32), terminated, truncated, valid)
        return Step(*map(torch.from_numpy, found))
