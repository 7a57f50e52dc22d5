"""The state of a clipper in a file of its own, within what a trainer saves."""

import warnings
from pathlib import Path

import torch

from cliplab.clipper import Clipper

NAME = "clipper.pt"


def write_state(clipper: Clipper, folder: str | Path) -> None:
    """Write the state into a folder."""
    torch.save(clipper.state_dict(), Path(folder, NAME))


def read_state(clipper: Clipper, folder: str | Path) -> None:
    """Go on from the state in a folder; ``UserWarning`` if there is none.

    ``ValueError`` for the state of another kind of clipper.
    """
    path = Path(folder, NAME)
    if path.is_file():
        clipper.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    else:
        warnings.warn(
            f"{path} is missing: the clipper begins anew, at step 0", UserWarning, stacklevel=3
        )
