"""Mistakes that can be seen on a gradient without looking at a value: none is there, or it has
been clipped before.

Makes numbers: no.
"""

from __future__ import annotations

from weakref import ref

import torch
from torch import Tensor

from cliplab.checks import tell
from cliplab.norms import dense, local
from cliplab.parts.partition import Gradients

_MANY = 4096  # marks that are kept: without one nothing is wrong but a silence
_WATCHED = 16  # steps


class Hand:
    """Something that clips, by the name that a warning gives it; ``loose``: a mere function.

    Functions in a row stand in one place and are meant; a clipper is warned of once.
    """

    __slots__ = ("left", "loose", "name", "news", "warned")

    def __init__(self, name: str, *, loose: bool = False) -> None:
        self.name, self.loose, self.warned = name, loose, False
        self.left = self.news = -1  # not at work yet


# Who clipped a gradient, known by its memory, and its version after that. A reference to the tensor
# itself would keep a module from swapping its tensors when it is moved.
_LAST: dict[int, tuple[ref[torch.UntypedStorage], int, Hand]] = {}
_news = 0  # how many hands have begun to work


def watched(hand: Hand | None) -> Hand | None:
    """The hand, if another one is to be looked for on its gradients at this step.

    In the first steps of any hand all are watched: a mistake in a loop shows at once, and to go on
    looking would cost every step. Never watched: no hand (what only measures), and in a graph.
    """
    global _news
    if hand is None or (hand.left == 0 and hand.news == _news) or torch.compiler.is_compiling():
        return None
    if hand.left < 0:
        _news += 1
    if hand.news != _news:
        hand.news, hand.left = _news, _WATCHED
    hand.left -= 1
    return hand


def mark(gradients: Gradients, hand: Hand) -> None:
    """Remember who has clipped gradients, by the first; it is neither changed nor held."""
    gradient = first_gradient(gradients)
    if gradient is None or gradient.is_inference():  # nobody counts the versions of such a one
        return
    if len(_LAST) > _MANY:
        _LAST.clear()
    _LAST[id(gradient)] = ref(_memory(gradient)), version(gradient), hand


def warn_if_clipped(gradients: Gradients, hand: Hand) -> None:
    """Warn, once for each hand, if another has clipped these and nothing wrote to them since.

    A backward pass, ``zero_grad`` and every other write to a tensor move its version on.
    """
    gradient = first_gradient(gradients)
    last = _LAST.get(id(gradient))
    if gradient is None or last is None or last[2] is hand or last[0]() is not _memory(gradient):
        return
    first = last[2]
    if hand.warned or first.warned or (hand.loose and first.loose):
        return
    if version(gradient) != last[1]:
        return
    hand.warned, first.warned = not hand.loose, not first.loose
    tell(
        f"the same gradient is clipped twice, by {first.name}, then by {hand.name}: leave one of "
        'them out, or, if both are meant, warnings.filterwarnings("ignore", "the same gradient is '
        'clipped twice")'
    )


def first_gradient(gradients: Gradients) -> Tensor | None:
    """The first that there is: it stands for all that are clipped together."""
    for gradient in gradients:
        if gradient is not None:
            return gradient
    return None


def warn_of_no_gradient(count: int) -> None:
    """Say that none of so many parameters has a gradient."""
    tell(
        f"there is no gradient at all, .grad is None for each parameter (of {count}), and nothing "
        "is clipped: clip after loss.backward() and before zero_grad(); a frozen model needs no "
        "clipper"
    )


def _memory(gradient: Tensor) -> torch.UntypedStorage:
    """What holds its entries; of a sparse one those that it stores."""
    return dense([gradient])[0].untyped_storage()


def version(tensor: Tensor) -> int:
    """How often a tensor was written to."""
    held = tensor if type(tensor) is Tensor else local(tensor)
    return held._version
