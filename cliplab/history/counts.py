"""How often something happened in all steps that were ever recorded."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cliplab.checks import described
from cliplab.thresholds import Step

EVENTS = ("clipped", "skipped", "nonfinite")
NAMES = ("steps", *EVENTS)


def tally(rows: Tensor) -> Tensor:
    """In how many of the steps ``[steps, 6, n_parts]`` each event met a part: ``[3]``."""
    step = Step(*rows.unbind(1))
    events = (step.clipped.bool(), step.skipped.bool(), ~step.size.isfinite())
    return torch.stack([flags.any(dim=1) for flags in events]).sum(dim=1)


def check_counts(counts: object) -> dict[str, int]:
    """Return the counts, or raise ``ValueError`` for what cannot have been counted."""
    given = dict(counts) if isinstance(counts, Mapping) else {}
    whole = set(given) == set(NAMES) and all(type(count) is int for count in given.values())
    if not whole or not all(0 <= count <= given["steps"] for count in given.values()):
        names = ", ".join(NAMES)
        raise ValueError(f"counts must be whole numbers >= 0 of {names}, got {described(counts)}")
    return given
