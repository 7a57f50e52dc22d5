"""Boards as Gymnasium environments, one game or many at once; importing this registers them.

``gymnasium.make_vec("cliplab/ConnectFour-v0", num_envs=512)``; also ``TicTacToe``, ``Go5``,
``Go7`` and ``Chess``.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from cliplab.lab.games.boards import board

Seen = NDArray[np.float32]
IDS = {
    "tic_tac_toe": "cliplab/TicTacToe-v0",
    "connect_four": "cliplab/ConnectFour-v0",
    "go5": "cliplab/Go5-v0",
    "go7": "cliplab/Go7-v0",
    "chess": "cliplab/Chess-v0",
}


class BoardEnv(gymnasium.Env[Seen, np.int64]):
    """Both players of a board in turn: the action is the mover's, the reward is from its side.

    The reward is 1 to a mover that has just won, -1 to one that has just lost, 0 otherwise;
    ``info["legal"]`` is the mask of the next mover. An illegal action raises ``ValueError``.
    After ``max_moves`` moves (0: the rules alone) a game is truncated, a draw.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012

    def __init__(self, name: str, max_moves: int = 0, render_mode: str | None = None) -> None:
        self.board, self.max_moves, self.render_mode = board(name), max_moves, render_mode
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, self.board.shape)
        self.action_space = gymnasium.spaces.Discrete(self.board.actions)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """An empty board, the first player to move."""
        super().reset(seed=seed, options=options)
        self.state = self.board.load().new_initial_state()
        return self._seen()

    def step(self, action: np.int64) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """The mover's action; then it is the other's turn."""
        mover = self.state.current_player()
        if int(action) not in self.state.legal_actions():
            raise self.board.refuse(self.state, int(action))
        self.state.apply_action(int(action))
        over = bool(self.state.is_terminal())
        reward = float(self.state.returns()[mover]) if over else 0.0
        truncated = not over and self.max_moves > 0 and self.state.move_number() >= self.max_moves
        seen, info = self._seen()
        return seen, reward, over, truncated, info

    def render(self) -> str:
        """The board as text."""
        return str(self.state)

    def _seen(self) -> tuple[Seen, dict[str, Any]]:
        info = {"legal": self.board.legal([self.state])[0]}
        return self.board.observe([self.state])[0], info


class BoardVectorEnv(gymnasium.vector.VectorEnv[Seen, NDArray[np.int64], NDArray[Any]]):
    """Many games of a board at once, as ``BoardEnv``; only those that still run take a step.

    Games are not reset by themselves: one that is over stays over, whatever its action, until
    ``reset``, of all or of those in ``options["reset_mask"]``. With ``random_moves`` k a game
    begins after 0 to k random moves (one that ends in them begins anew). ``info["mover"]`` is who
    is to move, -1 for nobody. ``states`` are OpenSpiel's.
    """

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        name: str,
        max_moves: int = 0,
        random_moves: int = 0,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs, self.board, self.max_moves = num_envs, board(name), max_moves
        self.random_moves, self.render_mode = random_moves, render_mode
        self.single_observation_space = gymnasium.spaces.Box(0.0, 1.0, self.board.shape)
        self.single_action_space = gymnasium.spaces.Discrete(self.board.actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.states: list[Any] = [None] * num_envs
        self.seen = np.zeros((num_envs, *self.board.shape), np.float32)
        self.legal = np.zeros((num_envs, self.board.actions), dtype=bool)
        self.terminated = np.zeros(num_envs, dtype=bool)
        self.truncated = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """New games, their first moves drawn by the environment's generator."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        chosen = np.flatnonzero(mask)
        for i in chosen:
            moves = int(self.np_random.integers(self.random_moves + 1))
            self.states[i] = self.board.begin(moves, self.np_random)
        self.terminated[chosen] = self.truncated[chosen] = False
        self._look(chosen)
        return self.seen.copy(), self._info()

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Seen, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One move in every game that still runs."""
        running = np.flatnonzero(~(self.terminated | self.truncated))
        rewards = np.zeros(self.num_envs)
        for i in running[~self.legal[running, actions[running]]]:
            raise self.board.refuse(self.states[i], int(actions[i]), f"game {i} of ")
        for i in running:
            state = self.states[i]
            mover = state.current_player()
            state.apply_action(int(actions[i]))
            if state.is_terminal():
                self.terminated[i] = True
                rewards[i] = state.returns()[mover]
            elif 0 < self.max_moves <= state.move_number():
                self.truncated[i] = True
        self._look(running)
        over = self.terminated.copy(), self.truncated.copy()
        return self.seen.copy(), rewards, *over, self._info()

    def _info(self) -> dict[str, Any]:
        running = ~(self.terminated | self.truncated)
        mover = [state.current_player() for state in self.states]
        return {"legal": self.legal.copy(), "mover": np.where(running, mover, -1)}

    def _look(self, games: NDArray[np.int64]) -> None:
        if len(games):
            states = [self.states[i] for i in games]
            self.seen[games] = self.board.observe(states)
            self.legal[games] = self.board.legal(states)


for _name, _id in IDS.items():
    gymnasium.register(
        _id,
        entry_point=f"{__name__}:BoardEnv",
        vector_entry_point=f"{__name__}:BoardVectorEnv",
        kwargs={"name": _name},
    )
