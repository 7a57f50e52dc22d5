"""Chess by OpenSpiel's rules, as a player that looks one move ahead sees it.

Positions are read off FEN: which piece stands on which square, from the side of the player to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyspiel

PIECES = ".PNBRQKpnbrqk"  # an empty square, white's pieces, black's
WORTH = np.array([0, 1, 3, 3, 5, 9, 0, -1, -3, -3, -5, -9, 0])  # the textbook's, for white
FEATURES = 12 * 64

_CODES = np.zeros(128, np.int8)
_CODES[np.frombuffer(PIECES.encode(), np.uint8)] = range(len(PIECES))
_OTHER = np.array([0, *range(7, 13), *range(1, 7)], np.int8)  # the same piece in the other colour
_SQUARES = str.maketrans({"/": "", **{str(n): n * "." for n in range(1, 9)}})
_PLANES = np.eye(len(PIECES), dtype=np.float32)[:, 1:]


@cache
def _game() -> pyspiel.Game:
    try:
        import pyspiel
    except ImportError:
        raise ImportError("chess needs open-spiel: pip install 'cliplab[games]'") from None
    return pyspiel.load_game("chess")


@dataclass(frozen=True)
class Replies:
    """Every move of every game: ``[moves]``, those of a game together.

    ``pieces [moves, 64]`` is what the other player then sees, as places in ``PIECES`` where its own
    are the white ones. ``ends`` is the result for the mover where the move ends the game, else NaN.
    """

    game: NDArray[np.int64]
    action: NDArray[np.int64]
    pieces: NDArray[np.int8]
    ends: NDArray[np.float64]

    def material(self) -> NDArray[np.float64]:
        """What the mover's pieces are worth more than the other's, after each move."""
        return -WORTH[self.pieces].sum(1).astype(float)

    def best(self, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
        """Which move is wanted most, of each game: places in these arrays."""
        order = np.lexsort((wanted, self.game))
        return order[np.append(self.game[1:] != self.game[:-1], True)]


def begin(games: int, plies: int, generator: np.random.Generator) -> list[pyspiel.State]:
    """Games after so many random plies; one that they would end is begun anew."""
    states: list[pyspiel.State] = []
    while len(states) < games:
        state = _game().new_initial_state()
        for _ in range(plies):
            actions = state.legal_actions()
            if actions:
                state.apply_action(actions[int(generator.integers(len(actions)))])
        if not state.is_terminal():
            states.append(state)
    return states


def replies(states: Sequence[pyspiel.State]) -> Replies:
    """All moves of games in which the same player is to move."""
    mover = states[0].current_player()
    game, action, boards, ends = [], [], [], []
    for i, state in enumerate(states):
        for move in state.legal_actions():
            child = state.child(move)
            game.append(i)
            action.append(move)
            boards.append(_squares(child))
            ends.append(child.returns()[mover] if child.is_terminal() else np.nan)
    pieces = _pieces(boards, white=mover == 0)  # OpenSpiel's player 0 is black: white moves next
    return Replies(np.array(game), np.array(action), pieces, np.array(ends))


def pieces_of(states: Sequence[pyspiel.State]) -> NDArray[np.int8]:
    """What the player to move sees, the same one in all games: ``[games, 64]``."""
    white = states[0].current_player() == 1
    return _pieces([_squares(state) for state in states], white=white)


def planes(pieces: NDArray[np.int8]) -> NDArray[np.float32]:
    """Pieces as the inputs of a network: ``[..., 64] -> [..., FEATURES]`` of 0 and 1."""
    return _PLANES[pieces].reshape(*pieces.shape[:-1], FEATURES)


def _squares(state: pyspiel.State) -> str:
    return str(state).split(" ", 1)[0].translate(_SQUARES)


def _pieces(boards: Sequence[str], *, white: bool) -> NDArray[np.int8]:
    codes = _CODES[np.frombuffer("".join(boards).encode(), np.uint8)].reshape(-1, 8, 8)
    return (codes if white else _OTHER[codes[:, ::-1]]).reshape(-1, 64)
