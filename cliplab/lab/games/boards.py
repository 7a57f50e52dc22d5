"""Board games with real rules (OpenSpiel): what a player sees, and a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyspiel


@dataclass(frozen=True)
class Board:
    """A two-player game by name; players move in turns and the returns add up to zero.

    ``spiel`` is OpenSpiel's name of it, ``swapped`` pairs of planes that are exchanged for player
    1, so that the mover's stones always lie in the same plane (none where a plane of the game tells
    who moves, as in chess).
    """

    name: str
    spiel: str
    swapped: tuple[tuple[int, int], ...] = ()

    def load(self) -> pyspiel.Game:
        """OpenSpiel's game; the package comes with the extra ``games``."""
        try:
            import pyspiel
        except ImportError:
            raise ImportError("board games need open-spiel: pip install 'cliplab[games]'") from None
        return pyspiel.load_game(self.spiel)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Planes, rows and columns of an observation."""
        planes, rows, columns = self.load().observation_tensor_shape()
        return planes, rows, columns

    @property
    def actions(self) -> int:
        """The number of actions, legal or not."""
        return int(self.load().num_distinct_actions())

    def observe(self, states: Sequence[pyspiel.State]) -> NDArray[np.float32]:
        """What the mover of each state sees: ``[N, planes, rows, columns]``."""
        seen = np.array([s.observation_tensor(max(s.current_player(), 0)) for s in states], "f4")
        seen = seen.reshape(len(states), *self.shape)
        second = np.array([s.current_player() == 1 for s in states], dtype=bool)
        for a, b in self.swapped:
            seen[second, a], seen[second, b] = seen[second, b], seen[second, a]
        return seen

    def legal(self, states: Sequence[pyspiel.State]) -> NDArray[np.bool_]:
        """Which actions the rules allow: ``[N, actions]``; none in a game that is over."""
        mask = np.zeros((len(states), self.actions), dtype=bool)
        for row, state in zip(mask, states, strict=True):
            row[state.legal_actions()] = True
        return mask


BOARDS = {
    board.name: board
    for board in (
        Board("tic_tac_toe", "tic_tac_toe", ((1, 2),)),
        Board("connect_four", "connect_four", ((0, 1),)),
        Board("go5", "go(board_size=5,komi=0.5)", ((0, 1),)),
        Board("go7", "go(board_size=7,komi=7.5)", ((0, 1),)),
        Board("chess", "chess"),
    )
}


def board(name: str) -> Board:
    """A board by its name; ``ValueError`` names the choices."""
    if name not in BOARDS:
        raise ValueError(f"no board {name!r}: choose one of {', '.join(BOARDS)}")
    return BOARDS[name]


class BoardEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Both players of a board in turn: the action is the mover's, the reward is from its side.

    The reward is 1 to a mover that has just won, -1 to one that has just lost, 0 otherwise;
    ``info["legal"]`` is the mask of the next mover. An illegal action raises ``ValueError``.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012

    def __init__(self, name: str = "connect_four", render_mode: str | None = None) -> None:
        self.board, self.render_mode = board(name), render_mode
        self._game = self.board.load()
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, self.board.shape)
        self.action_space = gymnasium.spaces.Discrete(self.board.actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """An empty board, the first player to move."""
        super().reset(seed=seed, options=options)
        self.state = self._game.new_initial_state()
        return self._seen()

    def step(
        self, action: np.int64
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """The mover's action; then it is the other's turn."""
        mover, legal = self.state.current_player(), self.state.legal_actions()
        if int(action) not in legal:
            raise ValueError(
                f"illegal action {action} in {self.board.name}: expected one of {legal}"
            )
        self.state.apply_action(int(action))
        over = bool(self.state.is_terminal())
        reward = float(self.state.returns()[mover]) if over else 0.0
        seen, info = self._seen()
        return seen, reward, over, False, info

    def render(self) -> str:
        """The board as text."""
        return str(self.state)

    def _seen(self) -> tuple[NDArray[np.float32], dict[str, Any]]:
        info = {"legal": self.board.legal([self.state])[0]}
        return self.board.observe([self.state])[0], info
