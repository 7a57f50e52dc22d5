"""Players against each other: matches on many boards at once, and their strength as Elo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cliplab.lab.games.boards import Board

if TYPE_CHECKING:
    import pyspiel

Player = Callable[[Sequence["pyspiel.State"]], Sequence[int]]  # an action for every state


def random_player(generator: np.random.Generator) -> Player:
    """Any legal move, all alike."""
    return lambda states: [_any(state.legal_actions(), generator) for state in states]


def _any(actions: Sequence[int], generator: np.random.Generator) -> int:
    return actions[int(generator.integers(len(actions)))]


def one_ply_player(generator: np.random.Generator) -> Player:
    """Wins in one move where it can, avoids moves that let the other win so, else any move."""

    def choose(state: pyspiel.State) -> int:
        mover = state.current_player()
        safe: list[int] = []
        losing: list[int] = []
        for action in state.legal_actions():
            child = state.child(action)
            if child.is_terminal():
                if child.returns()[mover] > 0:
                    return int(action)
                (losing if child.returns()[mover] < 0 else safe).append(action)
            elif any(_wins(child, reply) for reply in child.legal_actions()):
                losing.append(action)
            else:
                safe.append(action)
        return _any(safe or losing, generator)

    return lambda states: [choose(state) for state in states]


def greedy_player(board: Board, generator: np.random.Generator) -> Player:
    """One ply of Go: wins where it can at once, else takes the largest lead in stones it can.

    It passes only to win, or where it has no other move; moves that are equally good are drawn.
    """
    a_pass = board.actions - 1
    _, rows, columns = board.shape
    size = rows * columns
    plane = [slice(size * k, size * (k + 1)) for k in board.swapped[0]]  # stones of each player

    def lead(state: pyspiel.State, mover: int) -> float:
        if state.is_terminal():
            return float(state.returns()[mover]) * board.actions
        seen = state.observation_tensor(0)
        return float(sum(seen[plane[mover]]) - sum(seen[plane[1 - mover]]))

    def choose(state: pyspiel.State) -> int:
        actions = state.legal_actions()
        if _wins(state, a_pass):
            return a_pass
        actions = [action for action in actions if action != a_pass] or actions
        leads = [lead(state.child(action), state.current_player()) for action in actions]
        best = max(leads)
        return _any([a for a, n in zip(actions, leads, strict=True) if n == best], generator)

    return lambda states: [choose(state) for state in states]


def one_ply(board: Board, generator: np.random.Generator) -> Player:
    """The one-ply searcher of a board: greedy for stones in Go, for the win in other games."""
    return greedy_player(board, generator) if "go" in board.name else one_ply_player(generator)


def _wins(state: pyspiel.State, action: int) -> bool:
    child = state.child(action)
    return bool(child.is_terminal() and child.returns()[state.current_player()] > 0)


def random_openings(
    board: Board, pairs: int, moves: int, generator: np.random.Generator
) -> list[list[int]]:
    """First moves of games, random legal ones: ``pairs`` lists of ``moves`` actions."""
    return [list(board.begin(moves, generator).history()) for _ in range(pairs)]


def match(
    board: Board, player: Player, opponent: Player, openings: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Results of ``player``, ``[2 * len(openings)]`` in [-1, 1]: every opening from both sides.

    Openings keep two players without randomness from playing one game again and again; ``[[]]``
    is one game from the empty board for each to begin.
    """
    states, seats = [], []
    for opening in openings:
        for seat in (0, 1):  # the seat of `player`
            state = board.load().new_initial_state()
            for action in opening:
                state.apply_action(action)
            states.append(state)
            seats.append(seat)
    while waiting := [i for i, state in enumerate(states) if not state.is_terminal()]:
        for mover, other in ((player, 0), (opponent, 1)):  # nobody moves in a game that is over
            turn = [i for i in waiting if states[i].current_player() == abs(seats[i] - other)]
            if turn:
                for i, action in zip(turn, mover([states[i] for i in turn]), strict=True):
                    states[i].apply_action(int(action))
    return np.array([state.returns()[s] for state, s in zip(states, seats, strict=True)])


def elo(results: Mapping[tuple[str, str], float], games: int, *, zero: str) -> dict[str, float]:
    """Ratings of players from their mean results against each other, ``zero`` at 0.

    ``results[a, b]`` in [-1, 1] is the mean result of ``games`` games of a against b. Maximises the
    Bradley-Terry likelihood with P(a beats b) = 1 / (1 + 10^((R_b - R_a) / 400)), a draw being half
    a win, and one drawn game added to every pair, so that a player that always wins has a finite
    rating.
    """
    players = sorted({name for pair in results for name in pair})
    if zero not in players:
        raise ValueError(f"zero must be one of {', '.join(players)}, got {zero!r}")
    index = {name: i for i, name in enumerate(players)}
    first = np.array([index[a] for a, _ in results])
    second = np.array([index[b] for _, b in results])
    won = (np.array(list(results.values())) + 1) / 2 * games + 0.5
    total = games + 1.0

    def loss(ratings: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        gap = ratings[first] - ratings[second]
        value = total * np.logaddexp(0, gap) - won * gap
        slope = total / (1 + np.exp(-gap)) - won
        gradient = np.zeros_like(ratings)
        np.add.at(gradient, first, slope)
        np.add.at(gradient, second, -slope)
        return float(value.sum()), gradient

    ratings = minimize(loss, np.zeros(len(players)), jac=True).x * 400 / np.log(10)
    return {name: float(ratings[i] - ratings[index[zero]]) for name, i in index.items()}
