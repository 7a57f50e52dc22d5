"""Monte-Carlo tree search by PUCT, many games at once, their leaves evaluated as one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pyspiel

Floats = NDArray[np.float64]
# Priors [K, actions] and values [K] of K positions, and the game (root) that each belongs to.
Evaluate = Callable[[Sequence["pyspiel.State"], Sequence[int]], tuple[ArrayLike, ArrayLike]]


class _Node:
    """A position: its legal actions, and for each prior, visits, sum of values and child."""

    __slots__ = ("actions", "children", "prior", "state", "totals", "value", "visits")

    def __init__(self, state: pyspiel.State) -> None:
        self.state, self.value = state, 0.0
        self.actions: list[int] = []  # none in a game that is over
        self.children: list[_Node | None] = []

    def open(self, prior: Floats) -> None:
        self.actions = self.state.legal_actions()
        own = prior[self.actions]
        total = own.sum()
        self.prior = own / total if total > 0 else np.full(len(own), 1 / len(own))
        self.visits, self.totals = np.zeros(len(own)), np.zeros(len(own))
        self.children = [None] * len(own)

    def best(self, exploration: float) -> int:
        bonus = exploration * np.sqrt(max(self.visits.sum(), 1.0)) * self.prior
        return int((self.totals / np.maximum(self.visits, 1) + bonus / (1 + self.visits)).argmax())


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
    backs its value up with alternating signs (Silver 2017, AlphaZero). ``evaluate(states, games)``
    gives priors ``[K, actions]`` (those of illegal moves are ignored) and values ``[K]`` for the
    movers of positions that belong to the roots ``games``; a game that is over is valued by its
    rules. ``noise = (alpha, share)`` mixes Dirichlet noise into the roots' priors. Unvisited moves
    count as draws.
    """
    if simulations < 1:
        raise ValueError(f"simulations must be at least 1, got {simulations}")
    if any(state.is_terminal() for state in states):
        raise ValueError("a game that is over cannot be searched")
    roots = [_Node(state) for state in states]
    _expand(roots, range(len(roots)), evaluate)
    if noise is not None:
        alpha, share = noise
        generator = generator or np.random.default_rng()
        for root in roots:
            drawn = generator.dirichlet([alpha] * len(root.actions))
            root.prior = (1 - share) * root.prior + share * drawn

    for _ in range(simulations):
        paths, leaves, fresh = [], [], []
        for game, node in enumerate(roots):
            path = []
            while node.actions:
                move = node.best(exploration)
                path.append((node, move))
                child = node.children[move]
                if child is None:
                    child = _Node(node.state.child(node.actions[move]))
                    node.children[move] = child
                    fresh.append(game)
                    node = child
                    break
                node = child
            paths.append(path)
            leaves.append(node)
        _expand([leaves[game] for game in fresh], fresh, evaluate)
        for path, leaf in zip(paths, leaves, strict=True):
            value = leaf.value
            for node, move in reversed(path):
                value = -value  # good for the one is bad for the other
                node.visits[move] += 1
                node.totals[move] += value

    counts = np.zeros((len(roots), states[0].num_distinct_actions() if roots else 0), np.int64)
    for row, root in zip(counts, roots, strict=True):
        row[root.actions] = root.visits
    values = [(r.totals.sum() + r.value) / (r.visits.sum() + 1) for r in roots]
    return counts, np.array(values)


def _expand(nodes: Sequence[_Node], games: Sequence[int], evaluate: Evaluate) -> None:
    """Give new positions their priors, and their values for the player to move there."""
    running = []
    for node, game in zip(nodes, games, strict=True):
        if node.state.is_terminal():  # the next to move would be the one who did not move last
            node.value = -node.state.returns()[node.state.full_history()[-1].player]
        else:
            running.append((node, game))
    if running:
        prior, value = evaluate([node.state for node, _ in running], [game for _, game in running])
        priors, values = np.asarray(prior, float), np.asarray(value, float)
        for (node, _), p, v in zip(running, priors, values, strict=True):
            node.value = float(v)
            node.open(p)
