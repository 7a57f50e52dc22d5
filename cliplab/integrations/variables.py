"""A clipper where the weights are a trainer's own variables, which hold tensors, as in Keras."""

from __future__ import annotations

import json
from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from cliplab.clipper import Clipper


def clip_what_is_applied(clipper: Clipper, optimizer: Any) -> None:
    """Clip what is given to ``optimizer.apply``, in place, until that attribute is deleted.

    A step that is skipped is not applied: neither variables nor the optimizer's own move.
    """

    def apply(grads: Sequence[Tensor | None], trainable_variables: Any = None) -> None:
        variables = trainable_variables or optimizer._trainable_variables
        given = {id(v.value): grad for v, grad in zip(variables, grads, strict=True)}
        report = clipper.clip(grads=[given.get(id(p)) for p in clipper.params])
        if not report.skipped.any():
            type(optimizer).apply(optimizer, grads, trainable_variables)

    optimizer.apply = apply


class AmongWeights:
    """A clipper's state, saved and loaded among a model's weights as an optimizer's is."""

    def __init__(self, clipper: Clipper) -> None:
        self.clipper = clipper

    def _obj_type(self) -> str:
        return "Optimizer"

    def save_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Put the state into a store, as JSON in one array of bytes."""
        state = json.dumps(self.clipper.state_dict(plain=True))
        store["state"] = np.frombuffer(state.encode(), np.uint8)

    def load_own_variables(self, store: MutableMapping[str, Any]) -> None:
        """Go on from the state in a store; nothing happens where weights came without one."""
        if "state" in list(store.keys()):
            self.clipper.load_state_dict(json.loads(np.asarray(store["state"]).tobytes()))
