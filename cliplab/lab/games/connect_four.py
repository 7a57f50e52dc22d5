"""Connect four, many games at once: a board is bits of an integer, seven to a column of six."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

ROWS, COLUMNS = 6, 7
HIGH = ROWS + 1  # bits of a column; the top one stays empty, so that no line wraps
BITS = np.int64(1) << (np.arange(COLUMNS)[:, None] * HIGH + np.arange(ROWS))  # [columns, rows]


class ConnectFour:
    """``games`` boards in lockstep: each move is made in all of them, by the same player.

    Actions are columns. A game that is ``over`` has a ``result`` (1 if the first player has won, -1
    if it has lost, 0 for a draw), whatever is played then.
    """

    actions, features = COLUMNS, 2 * ROWS * COLUMNS

    def __init__(self, games: int) -> None:
        self._stones = np.zeros((2, games), np.int64)  # of the first and the second player
        self.moves, self.over, self.result = 0, np.zeros(games, bool), np.zeros(games)

    @property
    def mover(self) -> int:
        """Who is to move in all games: 0 or 1."""
        return self.moves % 2

    def seen(self) -> NDArray[np.float32]:
        """What the mover sees: its stones and the other's."""
        both = np.stack([self._stones[self.mover], self._stones[1 - self.mover]], 1)
        return ((both[:, :, None] & BITS.ravel()) != 0).reshape(len(both), -1).astype(np.float32)

    def legal(self) -> Mask:
        """Which columns are not full, ``[games, columns]``."""
        return _drops(self._stones[0] | self._stones[1]) != 0

    def step(self, actions: Ints) -> None:
        """Make a move in every game; where one is not over, it must be legal."""
        drops = _drops(self._stones[0] | self._stones[1])
        played = np.where(self.over, 0, drops[np.arange(len(drops)), actions])
        own = self._stones[self.mover] | played
        won = ~self.over & _has_four(own)
        self._stones[self.mover] = own
        self.result = np.where(won, 1 - 2 * self.mover, self.result)
        self.moves += 1
        self.over = self.over | won | ~self.legal().any(1)

    def greedy(self, generator: np.random.Generator) -> Ints:
        """Moves that win at once, else those that let the other not do so; drawn among equals."""
        own, other = self._stones[self.mover], self._stones[1 - self.mover]
        drops = _drops(own | other)
        wins = _has_four(own[:, None] | drops)
        replies = _drops((own | other)[:, None] | drops)
        safe = ~_has_four(other[:, None, None] | replies).any(2)
        wanted = 2.0 * wins + safe + generator.random(drops.shape)
        return np.where(drops != 0, wanted, -1.0).argmax(1)


def _drops(filled: Ints) -> Ints:
    """Where a stone comes to lie in each column, 0 where that is full: ``[..., columns]``."""
    free = (filled[..., None, None] & BITS) == 0
    return np.where(free.any(-1), BITS[np.arange(COLUMNS), free.argmax(-1)], 0)


def _has_four(stones: Ints) -> Mask:
    found = np.zeros(stones.shape, bool)
    for step in (1, HIGH, HIGH - 1, HIGH + 1):
        pairs = stones & stones >> step
        found |= pairs & pairs >> 2 * step != 0
    return found
