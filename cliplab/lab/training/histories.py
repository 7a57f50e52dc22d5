"""The history of every member of an ensemble, as its own clipper would have recorded it."""

from __future__ import annotations

import math

from torch import Tensor

from cliplab import History
from cliplab.lab.training.ensemble import Ensemble
from cliplab.thresholds import Step


def histories(ensemble: Ensemble, lrs: Tensor, updates: Tensor) -> list[History]:
    """One history a member, of learning rates and lengths of updates ``[steps, members]``.

    A member that was frozen where it ceased to be finite would have stayed so: from there on its
    norms are NaN.
    """
    rows = ensemble.clipper.history.rows.clone()  # [steps, columns, members]
    found = []
    for member, died in enumerate(ensemble.died_at.tolist()):
        if died >= 0:
            rows[died:, :2, member] = math.nan  # before and after clipping
        history = History(scalar=True)
        columns = (rows[:, :, member], lrs[:, member], updates[:, member])
        for row, lr, update in zip(*(c.tolist() for c in columns), strict=True):
            history.append(Step(*row), lr)
            history.put_update(update)
        found.append(history)
    return found
