"""Go on a small board, many games at once: a board is bits of an integer.

The rules are those of OpenSpiel's ``go``: area scoring with komi; a single stone may not be taken
back at once (ko); a move that repeats an earlier board ends the game as a draw. Two passes end it,
too, and so do twice as many moves as there are points: it is scored as the board stands.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Go:
    """``games`` boards in lockstep: each move is made in all of them, by the same player.

    Actions are the points, row by row, and last the pass. A game that is ``over`` has a ``result``
    (1 if the first player has won, -1 if it has lost, 0 for a draw), whatever is played then.
    """

    def __init__(self, games: int, size: int = 5, komi: float = 0.5) -> None:
        if not 2 <= size <= 7:
            raise ValueError(f"size = {size}, expected 2 to 7 (a board in 64 bits)")
        self.size, self.komi, self.points = size, komi, size * size
        self.actions, self.features = self.points + 1, 2 * self.points + 2
        self._bits = np.int64(1) << np.arange(self.points)
        self._all = self._bits.sum()
        column = np.arange(self.points) % size
        self._not_first = self._bits[column > 0].sum()
        self._not_last = self._bits[column < size - 1].sum()
        self._stones = np.zeros((2, games), np.int64)  # of the first and the second player
        self._boards = np.zeros((2 * self.points + 1, 2, games), np.int64)  # after every move
        self._ko, self._passes = np.zeros((2, games), np.int64)
        self.moves, self.over, self.result = 0, np.zeros(games, bool), np.zeros(games)
        self._look()

    @property
    def mover(self) -> int:
        """Who is to move in all games: 0 or 1."""
        return self.moves % 2

    def seen(self) -> NDArray[np.float32]:
        """What the mover sees: its stones, the other's, whether that one passed, who moves."""
        own, other = self._movers()
        flags = np.stack([self._passes > 0, np.full(own.shape, self.mover == 1)], 1)
        return np.concatenate([self._at(own), self._at(other), flags], 1).astype(np.float32)

    def legal(self) -> Mask:
        """Which actions the mover has, ``[games, actions]``; the pass is always one."""
        own, other = self._movers()
        safe = _union(np.where(self._at(own) & ~self._atari, self._groups, 0))
        taking = _union(np.where(self._at(other) & self._atari, self._free, 0))
        lives = self._beside(self._empty()) | self._beside(safe) | taking
        points = self._at(self._empty() & lives & ~self._ko)
        return np.concatenate([points, np.ones((len(points), 1), bool)], 1)

    def captures(self) -> Ints:
        """How many stones a move on each point would take, ``[games, points]``."""
        game, stone = np.nonzero(self._at(self._movers()[1]) & self._atari)
        point = np.searchsorted(self._bits, self._free[game, stone])
        taken = np.bincount(game * self.points + point, minlength=self.over.size * self.points)
        return taken.reshape(-1, self.points)

    def lead(self) -> NDArray[np.float64]:
        """The first player's area less the second's, and less komi."""
        empty, reach = self._empty(), []
        for own in self._stones:
            while not ((grown := own | self._beside(own) & empty) == own).all():
                own = grown
            reach.append(own)
        first, second = reach
        return self._at(first & ~second).sum(1) - self._at(second & ~first).sum(1) - self.komi

    def step(self, actions: Ints) -> None:
        """Make a move in every game; where one is not over, it must be legal."""
        own, other = self._movers()
        played = np.where(actions < self.points, self._bits[actions % self.points], 0)
        played = np.where(self.over, 0, played)
        hit = self._at(other) & (self._free == played[:, None]) & (played != 0)[:, None]
        taken = np.where(hit, self._bits, 0).sum(1)
        in_an_eye = self._beside(played) & ~other == 0
        self._ko = np.where(in_an_eye & (hit.sum(1) == 1), taken, 0)
        self._stones[self.mover], self._stones[1 - self.mover] = own | played, other & ~taken
        self._passes = np.where(actions == self.points, self._passes + 1, 0)
        self.moves += 1
        before = self._boards[: self.moves]
        repeats = (played != 0) & (before == self._stones).all(1).any(0)
        self._boards[self.moves] = self._stones
        last = self.moves == 2 * self.points
        ends = ~self.over & ((self._passes == 2) | repeats | last)
        if ends.any():
            self.result[ends] = np.where(repeats, 0, np.sign(self.lead()))[ends]
            self.over = self.over | ends
        self._look()

    def greedy(self, generator: np.random.Generator) -> Ints:
        """Moves that take most stones, drawn among equals; a pass wins, or is the only move."""
        legal = self.legal()
        wanted = self.captures() + generator.random((len(legal), self.points))
        best = np.where(legal[:, :-1], wanted, -1.0).argmax(1)
        ahead = np.sign(self.lead()) == 1 - 2 * self.mover
        passes = (self._passes > 0) & ahead | ~legal[:, :-1].any(1)
        return np.where(passes, self.points, best)

    def _movers(self) -> tuple[Ints, Ints]:
        return self._stones[self.mover].copy(), self._stones[1 - self.mover].copy()

    def _empty(self) -> Ints:
        return self._all & ~(self._stones[0] | self._stones[1])

    def _look(self) -> None:
        """The group of the stone on every point, its liberties, and whether it has only one."""
        first, second = self._stones[:, :, None]
        same = np.where(first & self._bits, first, np.where(second & self._bits, second, 0))
        groups = same & self._bits
        while not ((grown := groups | self._beside(groups) & same) == groups).all():
            groups = grown
        self._groups = groups
        self._free = self._beside(groups) & self._empty()[:, None]
        self._atari = self._free & (self._free - 1) == 0

    def _beside(self, x: Ints) -> Ints:
        aside = (x & self._not_last) << 1 | (x & self._not_first) >> 1
        return (aside | x << self.size | x >> self.size) & self._all

    def _at(self, board: Ints) -> Mask:
        return (board[:, None] & self._bits) != 0


def _union(boards: Ints) -> Ints:
    return np.bitwise_or.reduce(boards, 1)
