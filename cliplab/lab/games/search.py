"""Monte-Carlo tree search by PUCT, many games at once, their leaves evaluated as one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyspiel

Floats = NDArray[np.float64]
Evaluate = Callable[[Sequence["pyspiel.State"]], tuple[Floats, Floats]]


def search(
    states: Sequence[pyspiel.State],
    evaluate: Evaluate,
    *,
    simulations: int,
    exploration: float = 1.5,
    noise: tuple[float, float] | None = None,
    generator: np.random.Generator | None = None,
) -> tuple[NDArray[np.int64], Floats]:
    """Visit counts ``[N, actions]`` of every root's moves, and its value ``[N]`` for the mover.

    Each simulation walks from the root of every game by
    ``argmax_a Q(a) + exploration * P(a) * sqrt(sum_b n(b)) / (1 + n(a))``, adds one leaf, and
    backs its value up with alternating signs (Silver 2017, AlphaZero). ``evaluate(states)`` gives
    priors ``[K, actions]`` (zero for illegal moves, or they are made so) and values ``[K]`` for the
    movers; a game that is over is valued by its rules. ``noise = (alpha, share)`` mixes Dirichlet
    noise into the roots' priors. Unvisited moves count as draws.

    A tree holds at most ``simulations + 1`` positions, each with its own state.
    """
    if simulations < 1:
        raise ValueError(f"simulations must be at least 1, got {simulations}")
    if any(state.is_terminal() for state in states):
        raise ValueError("a game that is over cannot be searched")
    games, actions = len(states), states[0].num_distinct_actions()
    size = (games, simulations + 1, actions)
    visits, totals, priors = np.zeros(size, np.int64), np.zeros(size), np.zeros(size)
    legal, children = np.zeros(size, bool), np.full(size, -1)
    nodes = [[state] for state in states]

    def expand(leaves: list[tuple[int, int]]) -> Floats:
        """Priors of new positions, and their values for the player to move there."""
        values = np.zeros(len(leaves))
        open_ones = []
        for i, (game, node) in enumerate(leaves):
            state = nodes[game][node]
            if state.is_terminal():  # the mover of the last move sees the returns; the next, minus
                values[i] = -state.returns()[_last_mover(state)]
            else:
                legal[game, node, state.legal_actions()] = True
                open_ones.append(i)
        if open_ones:
            prior, value = evaluate([nodes[g][k] for g, k in (leaves[i] for i in open_ones)])
            for i, p, v in zip(open_ones, prior, value, strict=True):
                allowed = legal[leaves[i]]
                p = np.where(allowed, p, 0.0)
                priors[leaves[i]] = p / p.sum() if p.sum() > 0 else allowed / allowed.sum()
                values[i] = v
        return values

    roots = [(game, 0) for game in range(games)]
    root_values = expand(roots)
    if noise is not None:
        alpha, share = noise
        generator = generator or np.random.default_rng()
        for game, node in roots:
            allowed = legal[game, node]
            drawn = generator.dirichlet([alpha] * int(allowed.sum()))
            priors[game, node, allowed] = (1 - share) * priors[game, node, allowed] + share * drawn

    for _ in range(simulations):
        paths, leaves = [], []
        for game in range(games):
            path, node = [], 0
            while True:
                if nodes[game][node].is_terminal():
                    break
                n = visits[game, node]
                q = totals[game, node] / np.maximum(n, 1)
                bonus = exploration * priors[game, node] * np.sqrt(max(n.sum(), 1)) / (1 + n)
                action = int(np.where(legal[game, node], q + bonus, -np.inf).argmax())
                path.append((node, action))
                child = children[game, node, action]
                if child < 0:
                    child = len(nodes[game])
                    children[game, node, action] = child
                    nodes[game].append(nodes[game][node].child(action))
                    node = child
                    break
                node = int(child)
            paths.append(path)
            leaves.append((game, node))
        for game, (path, value) in enumerate(zip(paths, expand(leaves), strict=True)):
            for node, action in reversed(path):
                value = -value  # good for the one is bad for the other
                visits[game, node, action] += 1
                totals[game, node, action] += value
    return visits[:, 0], (totals[:, 0].sum(1) + root_values) / (visits[:, 0].sum(1) + 1)


def _last_mover(state: pyspiel.State) -> int:
    return int(state.full_history()[-1].player)
