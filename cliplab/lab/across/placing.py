"""Where a comparison stands, model by optimizer, by the words of its question."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["MODELS", "OPTIMIZERS", "OTHER", "model_of", "optimizer_of"]

OTHER = "other"
# The first that is found counts: an agent is one whatever its network is, and what moves slowly.
_MODELS = (
    ("agent", r"\b(A2C|PPO|DQN|AlphaZero)\b|actor-critic|self-play|\bagents?\b"),
    ("transformer", r"\btransformers?\b"),
    ("LSTM", r"\bLSTMs?\b"),
    ("plain RNN", r"\bRNNs?\b"),
    ("ResNet", r"\bResNets?\b|residual net"),
    ("CNN", r"\bCNNs?\b|convolution"),
    ("MLP", r"\bMLPs?\b|perceptron|autoencoder"),
)
_OPTIMIZERS = (
    ("SGD with momentum", r"\bmomentum\b|\bNesterov\b|\bNAG\b|\bSGDm\b"),
    ("SGD", r"\bSGD\b"),
    ("AdamW", r"\bAdamW\b"),
    ("Adam", r"\bAdam\b"),
    ("RMSprop", r"\bRMSprop\b"),
)
MODELS, OPTIMIZERS = ([name for name, _ in words] for words in (_MODELS, _OPTIMIZERS))


def model_of(text: str) -> str:
    """What is trained.

    >>> model_of("Does clipping help a two-layer LSTM language model?"), model_of("Does it help?")
    ('LSTM', 'other')
    """
    return _first(text, _MODELS)


def optimizer_of(text: str) -> str:
    """What it is trained with.

    >>> optimizer_of("(a CNN, SGD with momentum)"), optimizer_of("(a CNN, plain SGD)")
    ('SGD with momentum', 'SGD')
    """
    return _first(text, _OPTIMIZERS)


def _first(text: str, words: Sequence[tuple[str, str]]) -> str:
    return next((name for name, pattern in words if re.search(pattern, text)), OTHER)
