"""What every trainer needs: a clipper that is made when the model is there, and one warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from cliplab.checks import described
from cliplab.clipper import Clipper
from cliplab.methods import create

Clipping = str | Callable[[nn.Module], Clipper]


def make_clipper(clipping: Clipping, module: nn.Module, arguments: dict[str, Any]) -> Clipper:
    """The clipper of a method's name, ``create(name, module, **arguments)``, or of a function.

    ``ValueError`` for what is neither, for a function that makes something else, and for arguments
    beside a function.
    """
    if isinstance(clipping, str):
        return create(clipping, module, **arguments)
    if not callable(clipping) or isinstance(clipping, Clipper):
        raise ValueError(
            f"clipping must be a method's name or a function of the model that returns a Clipper, "
            f"got {described(clipping)}"
        )
    if arguments:
        raise ValueError(f"{', '.join(arguments)} go with a method's name, not with a function")
    made = clipping(module)
    if not isinstance(made, Clipper):
        raise ValueError(f"clipping must return a Clipper, got {described(made)}")
    return made


def warn_of_own_clipping(setting: str, off: str) -> None:
    """``UserWarning``: the trainer clips, too; ``off`` is how that is switched off."""
    warnings.warn(
        f"{setting} clips, too, beside the clipper: it hands on, or is handed, what is clipped "
        f"already. Switch it off: {off}",
        UserWarning,
        stacklevel=3,
    )
