"""A small residual network with a policy and a value head, as a player and for the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cliplab.lab.games.arena import Player
from cliplab.lab.games.boards import Board
from cliplab.lab.games.search import Evaluate, search

if TYPE_CHECKING:
    import pyspiel


class BoardNet(nn.Module):
    """AlphaZero's shape: ``blocks`` residual blocks of ``filters``, a policy and a value head.

    ``[N, planes, rows, columns] -> [N, actions + 1]``: logits of all actions, and last the value
    for the mover in (-1, 1). Block: ``x + conv(relu(conv(relu(x))))``. There is no normalisation,
    so no buffers, and an ensemble is one batched program; instead weights start as He's, the second
    convolution of every block at zero (Fixup, Zhang 2019), and so do both heads: a network begins
    with the uniform policy and the value 0. The heads read all filters: AlphaZero's bottleneck of
    one or two rectified planes dies in networks this small.
    """

    def __init__(
        self, board: Board, filters: int = 8, blocks: int = 2, *, seed: int | None = None
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            planes, rows, columns = board.shape
            self.stem = nn.Conv2d(planes, filters, 3, padding=1)
            both = [nn.Conv2d(filters, filters, 3, padding=1) for _ in range(2 * blocks)]
            self.first, self.second = nn.ModuleList(both[::2]), nn.ModuleList(both[1::2])
            self.policy = nn.Linear(filters * rows * columns, board.actions)
            self.hidden = nn.Linear(filters * rows * columns, 32)
            self.value = nn.Linear(32, 1)
            for layer in (self.stem, *both):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.get_parameter("bias"))
            for start in (*both[1::2], self.policy, self.value):
                nn.init.zeros_(start.get_parameter("weight"))
                nn.init.zeros_(start.get_parameter("bias"))

    def forward(self, seen: Tensor) -> Tensor:
        """``[N, planes, rows, columns] -> [N, actions + 1]``."""
        x = self.stem(seen)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(F.relu(first(F.relu(x))))
        x = F.relu(x).flatten(1)
        return torch.cat([self.policy(x), torch.tanh(self.value(F.relu(self.hidden(x))))], dim=1)


def legal_log_softmax(logits: Tensor, legal: Tensor) -> Tensor:
    """Log-probabilities of legal actions, ``-inf`` for others; of no legal one at all, uniform.

    >>> legal_log_softmax(torch.zeros(3), torch.tensor([True, False, True])).exp()
    tensor([0.5000, 0.0000, 0.5000])
    """
    allowed = legal | ~legal.any(-1, keepdim=True)
    return F.log_softmax(logits.masked_fill(~allowed, -torch.inf), dim=-1)


def legal_policy(logits: Tensor, legal: Tensor) -> Tensor:
    """Probabilities of legal actions; where logits are not finite, all legal ones alike.

    So a network that has diverged still plays by the rules, and knows nothing.

    >>> legal_policy(torch.tensor([torch.nan, 1.0, 2.0]), torch.tensor([True, False, True]))
    tensor([0.5000, 0.0000, 0.5000])
    """
    finite = logits.isfinite().all(-1, keepdim=True)
    return legal_log_softmax(logits.where(finite, 0.0), legal).exp()


def evaluate_by(forward: Callable[[Tensor, Sequence[int]], Tensor], board: Board) -> Evaluate:
    """Priors and values of positions from what is answered to ``forward(seen, games)``.

    ``seen [K, planes, rows, columns] -> [K, actions + 1]``, on the CPU; a value that is not a
    number counts as a draw.
    """

    @torch.no_grad()
    def evaluate(
        states: Sequence[pyspiel.State], games: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        out = forward(torch.from_numpy(board.observe(states)), games)
        policy = legal_policy(out[:, :-1], torch.from_numpy(board.legal(states)))
        return policy.numpy(), out[:, -1].nan_to_num().numpy()

    return evaluate


def evaluator(net: nn.Module, board: Board) -> Evaluate:
    """Priors and values of positions by one network, whichever games they belong to."""
    return evaluate_by(lambda seen, _: net(seen.to(next(net.parameters()).device)).cpu(), board)


def policy_player(net: nn.Module, board: Board) -> Player:
    """Plays the action that the network thinks likeliest."""
    evaluate = evaluator(net, board)
    return lambda states: np.argmax(evaluate(states, range(len(states)))[0], 1).tolist()


def sampling_player(net: nn.Module, board: Board, seed: int) -> Player:
    """Draws its actions from the network's policy."""
    evaluate, generator = evaluator(net, board), torch.Generator().manual_seed(seed)

    def choose(states: Sequence[pyspiel.State]) -> Sequence[int]:
        policy = torch.as_tensor(evaluate(states, range(len(states)))[0])
        return torch.multinomial(policy, 1, generator=generator)[:, 0].tolist()

    return choose


def search_player(net: nn.Module, board: Board, simulations: int) -> Player:
    """Plays the action that a search with the network visits most."""
    evaluate = evaluator(net, board)
    return lambda states: search(states, evaluate, simulations=simulations)[0].argmax(1).tolist()
