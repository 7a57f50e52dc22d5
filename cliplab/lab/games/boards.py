"""Board games with real rules (OpenSpiel), and what a player sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyspiel


@cache
def _load(spiel: str) -> pyspiel.Game:
    try:
        import pyspiel
    except ImportError:
        raise ImportError("board games need open-spiel: pip install 'cliplab[games]'") from None
    return pyspiel.load_game(spiel)


@dataclass(frozen=True)
class Board:
    """A two-player game by name; players move in turns and the returns add up to zero.

    ``spiel`` is OpenSpiel's name of it. Both players see the board as the first player would: for
    player ``second`` the pairs of planes in ``swapped`` are exchanged, so that the mover's stones
    always lie in the same plane, and, where ``mirrored``, the rows are turned round.
    """

    name: str
    spiel: str
    swapped: tuple[tuple[int, int], ...]
    second: int = 1
    mirrored: bool = False

    def load(self) -> pyspiel.Game:
        """OpenSpiel's game; the package comes with the extra ``games``."""
        return _load(self.spiel)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows and columns of an observation."""
        planes, rows, columns = self.load().observation_tensor_shape()
        return planes, rows, columns

    @property
    def actions(self) -> int:
        """The number of actions, legal or not."""
        return int(self.load().num_distinct_actions())

    def begin(self, moves: int, generator: np.random.Generator) -> pyspiel.State:
        """A game after random legal ``moves``; one that would be over by then is begun anew."""
        while True:
            state = self.load().new_initial_state()
            for _ in range(moves):
                if not state.is_terminal():
                    actions = state.legal_actions()
                    state.apply_action(actions[int(generator.integers(len(actions)))])
            if not state.is_terminal():
                return state

    def refuse(self, state: pyspiel.State, action: int, where: str = "") -> ValueError:
        """The error that an illegal action raises."""
        return ValueError(
            f"illegal action {action} in {where}{self.name}: "
            f"expected one of {state.legal_actions()}"
        )

    def observe(self, states: Sequence[pyspiel.State]) -> NDArray[np.float32]:
        """What the mover of each state sees: ``[N, planes, rows, columns]``."""
        seen = np.array([s.observation_tensor(max(s.current_player(), 0)) for s in states], "f4")
        seen = seen.reshape(len(states), *self.shape)
        second = np.array([s.current_player() == self.second for s in states], dtype=bool)
        if second.any():
            order = np.arange(self.shape[0])
            for a, b in self.swapped:
                order[[a, b]] = b, a
            turned = seen[second][:, order]
            seen[second] = turned[:, :, ::-1] if self.mirrored else turned
        return seen

    def legal(self, states: Sequence[pyspiel.State]) -> NDArray[np.bool_]:
        """Which actions the rules allow: ``[N, actions]``; none in a game that is over."""
        mask = np.zeros((len(states), self.actions), dtype=bool)
        for row, state in zip(mask, states, strict=True):
            row[state.legal_actions()] = True
        return mask


# In chess OpenSpiel's player 0 is black, who moves second, and an action means the same move seen
# from the mover's side; its planes are pairs of white and black pieces, and rights to castle.
CHESS = (*((a, a + 1) for a in range(0, 12, 2)), (16, 18), (17, 19))

BOARDS = {
    board.name: board
    for board in (
        Board("tic_tac_toe", "tic_tac_toe", ((1, 2),)),
        Board("connect_four", "connect_four", ((0, 1),)),
        Board("go5", "go(board_size=5,komi=0.5)", ((0, 1),)),
        Board("go7", "go(board_size=7,komi=7.5)", ((0, 1),)),
        Board("chess", "chess", CHESS, second=0, mirrored=True),
    )
}


def board(name: str) -> Board:
    """A board by its name; ``ValueError`` names the choices."""
    if name not in BOARDS:
        raise ValueError(f"no board {name!r}: choose one of {', '.join(BOARDS)}")
    return BOARDS[name]
