"""Self-play of many networks at once: games in lockstep, positions as one padded batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cliplab.lab.games.environments import BoardVectorEnv
from cliplab.lab.games.network import evaluate_by, legal_policy
from cliplab.lab.games.search import Evaluate, search

# Every member's network on its own positions: [M, K, planes, rows, columns] -> [M, K, actions + 1].
Forward = Callable[[Tensor], Tensor]
# What a player of all games is told: what is seen [M, K, ...], what is legal [M, K, actions], which
# games these are [M, K]. It answers with actions [M, K] and targets [M, K, actions] or None.
Choose = Callable[[Tensor, Tensor, NDArray[np.int64]], tuple[Tensor, Tensor | None]]


@dataclass
class Games:
    """Positions of ``[M]`` members, ``N`` each, padded: those that count are ``valid``.

    ``outcome`` is the game's result for the mover of the position, ``target`` what the player gave
    beside its action (zeros where nothing).
    """

    seen: Tensor  # [M, N, planes, rows, columns]
    legal: Tensor  # [M, N, actions]
    action: Tensor  # [M, N]
    outcome: Tensor  # [M, N]
    valid: Tensor  # [M, N]
    target: Tensor | None
    moves: int  # moves made, of all members
    histories: list[list[int]]  # actions of every game, random first ones included


class Replay:
    """The last ``rounds`` of games with targets; batches are drawn without copying these."""

    def __init__(self, rounds: int) -> None:
        self.rounds: deque[Games] = deque(maxlen=rounds)

    def append(self, games: Games) -> None:
        """The newest round; the oldest goes when there are too many."""
        if games.target is None:
            raise ValueError("a replay buffer needs targets: these games have none")
        self.rounds.append(games)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is seen, legal, the target and the outcome of ``[M, batch]`` valid positions.

        Every member's positions of all rounds are equally likely, and drawn with replacement.
        """
        valid = torch.cat([one.valid for one in self.rounds], dim=1)
        drawn = torch.multinomial(valid.float(), batch, replacement=True, generator=generator)
        sizes = [one.valid.shape[1] for one in self.rounds]
        ends = torch.tensor(sizes).cumsum(0)
        owner = torch.bucketize(drawn, ends, right=True)
        spots = [(owner == k).nonzero(as_tuple=True) for k in range(len(sizes))]

        def gather(column: str) -> Tensor:
            parts: list[Tensor] = [getattr(one, column) for one in self.rounds]
            result = parts[0].new_empty(*drawn.shape, *parts[0].shape[2:])
            for part, (member, place), end in zip(parts, spots, ends.tolist(), strict=True):
                result[member, place] = part[member, drawn[member, place] - end + part.shape[1]]
            return result

        return gather("seen"), gather("legal"), gather("target"), gather("outcome")


def play(env: BoardVectorEnv, members: int, choose: Choose) -> Games:
    """Play all games of ``env`` to their ends; game g belongs to member ``g // (games / M)``.

    Only games that still run are shown to ``choose``; a member with fewer of them than another
    is filled up with games that are over, whose answers count for nothing.
    """
    if env.num_envs % members:
        raise ValueError(f"{env.num_envs} games cannot be shared by {members} members")
    seen, info = env.reset()
    legal = info["legal"]
    running = np.ones((members, env.num_envs // members), dtype=bool)
    first = np.arange(members)[:, None] * running.shape[1]
    result = np.zeros(env.num_envs)  # for player 0
    steps: list[tuple[Tensor, ...]] = []
    parts: list[tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]] = []
    moves = 0
    while running.any():
        most = int(running.sum(1).max())
        local = np.argsort(~running, axis=1, kind="stable")[:, :most]
        valid = np.take_along_axis(running, local, axis=1)
        games = first + local
        shown, allowed = torch.from_numpy(seen[games]), torch.from_numpy(legal[games])
        action, target = choose(shown, allowed, games)
        steps.append(
            (shown, allowed, action) if target is None else (shown, allowed, action, target)
        )
        side = np.where(info["mover"] == 1, -1, 1)
        parts.append((games, valid, side[games]))
        moves += int(valid.sum())
        chosen = np.zeros(env.num_envs, np.int64)
        chosen[games[valid]] = action.numpy()[valid]
        seen, reward, terminated, truncated, info = env.step(chosen)
        legal = info["legal"]
        result += side * reward
        running &= ~(terminated | truncated).reshape(running.shape)
    columns = [torch.cat(column, dim=1) for column in zip(*steps, strict=True)]
    outcome = np.concatenate([side * result[games] for games, _, side in parts], axis=1)
    return Games(
        seen=columns[0],
        legal=columns[1],
        action=columns[2],
        outcome=torch.from_numpy(outcome.astype("f4")),
        valid=torch.from_numpy(np.concatenate([valid for _, valid, _ in parts], axis=1)),
        target=columns[3] if len(columns) == 4 else None,
        moves=moves,
        histories=[state.history() for state in env.states],
    )


def draw_moves(forward: Forward, generator: torch.Generator) -> Choose:
    """Moves drawn from every member's own policy."""

    def choose(
        seen: Tensor, legal: Tensor, games: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            policy = legal_policy(forward(seen)[..., :-1], legal)
        drawn = torch.multinomial(policy.flatten(0, 1), 1, generator=generator)
        return drawn.view(policy.shape[:2]), None

    return choose


def member_evaluator(
    forward: Forward, env: BoardVectorEnv, owners: NDArray[np.int64], members: int
) -> Evaluate:
    """Priors and values for a search whose root g belongs to member ``owners[g]``."""

    def answer(positions: Tensor, games: Sequence[int]) -> Tensor:
        owner = owners[np.asarray(games)]
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=members)
        place = np.empty(len(owner), np.int64)  # among the positions of its own member
        place[order] = np.arange(len(owner)) - np.repeat(counts.cumsum() - counts, counts)
        seen = positions.new_zeros(members, counts.max(), *positions.shape[1:])
        seen[owner, place] = positions
        return forward(seen)[owner, place]

    return evaluate_by(answer, env.board)


def search_moves(
    forward: Forward,
    env: BoardVectorEnv,
    generator: np.random.Generator,
    *,
    simulations: int,
    free: int,
    noise: tuple[float, float] | None = (1.0, 0.25),
) -> Choose:
    """Moves of a search by every member's own network; shares of visits as targets (AlphaZero).

    A game's first ``free`` moves are drawn by visits, later ones are the most visited.
    """

    def choose(
        seen: Tensor, legal: Tensor, games: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor | None]:
        members, flat = len(games), games.reshape(-1)
        running = np.flatnonzero(~(env.terminated | env.truncated)[flat])
        states = [env.states[flat[i]] for i in running]
        evaluate = member_evaluator(forward, env, running // games.shape[1], members)
        visits, _ = search(
            states, evaluate, simulations=simulations, noise=noise, generator=generator
        )
        target = np.zeros((len(flat), visits.shape[1]))
        target[running] = visits / visits.sum(1, keepdims=True)
        action = target.argmax(1)
        for i, state in zip(running, states, strict=True):
            if state.move_number() < free:
                action[i] = generator.choice(visits.shape[1], p=target[i])
        shape = games.shape
        return torch.from_numpy(action).view(shape), torch.from_numpy(target).float().view(
            *shape, -1
        )

    return choose
