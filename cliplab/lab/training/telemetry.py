"""What the clipping columns of a row mean: the same in every notebook and in every table.

A run has a raw L2 norm ``n`` of its whole gradient at every step, and its rule compares sizes ``s``
with limits ``c``: ``s`` is ``n`` itself where the rule limits the whole gradient (scope "global" or
"member"), else the size of each part (a tensor, a unit, the largest entry). Over the recorded
steps that the run was alive at, those before ``died_at``:

* ``norm_mean``, ``norm_median`` (of the middle two their mean), ``norm_p99`` (interpolated),
  ``norm_max``: of ``n``;
* ``clip_fraction``: share of the sizes, over steps and parts, with ``s > c``;
* ``excess``: mean over steps and parts of ``max(s - c, 0)``, in the unit of ``s``, whatever the
  rule answers (what a rule took off the norm of the whole gradient is another number);
* ``factor_mean``: mean over steps and parts of what was multiplied by; 0 at a skipped step.

A column is NaN (None in a row) where the run was not alive at any recorded step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cliplab.history import History


def columns_of(norms: Tensor, sizes: Tensor, limits: Tensor, factors: Tensor) -> dict[str, Tensor]:
    """The columns of runs, ``[runs]`` each, of what was seen while they were alive, else NaN.

    Norms are ``[steps, runs]``; sizes, limits and factors have a line for every step and part.
    """
    alive = ~sizes.isnan()
    return {
        "norm_mean": norms.nanmean(dim=0),
        "norm_median": norms.nanquantile(0.5, dim=0),
        "norm_p99": norms.nanquantile(0.99, dim=0),
        "norm_max": norms.nan_to_num(nan=-math.inf).amax(dim=0),
        "clip_fraction": (sizes > limits).sum(dim=0).to(sizes.dtype) / alive.sum(dim=0),
        "excess": (sizes - limits).clamp(min=0).nanmean(dim=0),
        "factor_mean": factors.where(alive, math.nan).nanmean(dim=0),
    }


def member_columns(
    history: History, died_at: Tensor, runs: Tensor | None = None
) -> dict[str, Tensor]:
    """The columns of an ensemble's runs, ``[runs]``, from the history of a "member" clipper.

    ``died_at`` is -1 in the living. Every member is a run, or ``runs [runs, k]`` names the members
    of each, whose steps are taken together.
    """
    steps = history.first_step + torch.arange(len(history))  # a long history forgets the oldest
    died_at = died_at.cpu()
    alive = (died_at < 0) | (steps[:, None] < died_at)
    sizes = history.norm_before.cpu().where(alive, math.nan)
    columns = [sizes, sizes, history.threshold.cpu(), history.factor.cpu()]
    if runs is not None:
        columns = [column[:, runs].transpose(1, 2).flatten(0, 1) for column in columns]
    return columns_of(*columns)


def run_columns(
    history: History, died_at: int | None = None, *, norms: Sequence[float] | None = None
) -> dict[str, float | None]:
    """The columns of one run from the history of its clipper, computed in double precision.

    ``norms``: raw norms of the whole gradient while alive, for a rule that limits something else;
    by default those of the history (``History.total``).
    """
    steps = history.first_step + torch.arange(len(history))
    alive = steps < (math.inf if died_at is None else died_at)

    def column(values: Tensor) -> Tensor:
        own = values.double().reshape(-1, 1)
        return own if len(own) else torch.full((1, 1), math.nan)

    seen = [history.total, history.norm_before, history.threshold, history.factor]
    own, *parts = [column(values.cpu()[alive]) for values in seen]
    whole = own if norms is None else column(torch.tensor(norms, dtype=torch.double))
    return {name: finite_or_none(value) for name, value in columns_of(whole, *parts).items()}


def finite_or_none(value: Tensor) -> float | int | bool | None:
    """A number as rows hold it: None where it is not finite."""
    number = value.item()
    return None if isinstance(number, float) and not math.isfinite(number) else number
