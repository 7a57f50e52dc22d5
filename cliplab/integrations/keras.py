"""Keras on torch clips by a clipper: ``model.fit(x, y, callbacks=[Clip("autoclip")])``."""

from typing import Any

import keras  # type: ignore[import-untyped]
from keras.src.saving.keras_saveable import KerasSaveable  # type: ignore[import-untyped]

from cliplab.integrations.making import Clipping, make_clipper, warn_of_own_clipping
from cliplab.integrations.variables import AmongWeights, clip_what_is_applied


class State(AmongWeights, KerasSaveable):  # type: ignore[misc]
    """The state of a ``Clip``, as ``model.clip``; it must refer to nothing that Keras saves."""


class Clip(keras.callbacks.Callback):  # type: ignore[misc]
    """Make ``clipper`` when a model is fitted; what the optimizer applies is clipped, or skipped.
    Its last step is in an epoch's logs, its state in the weights. ``ValueError`` off torch.
    Args:
        clipping: a method's name, or a function of the model that returns a ``Clipper``.
        arguments: the method's own parameters.
    """

    def __init__(self, clipping: Clipping, **arguments: Any) -> None:
        super().__init__()
        if keras.backend.backend() != "torch":
            raise ValueError(f"Clip needs KERAS_BACKEND=torch, got {keras.backend.backend()}")
        self.clipper: Any = None
        self._clipping, self._arguments = clipping, arguments

    def set_model(self, model: Any) -> None:
        """Make the clipper, unless there is one of this model: it can be loaded from now on."""
        super().set_model(model)
        if self.clipper is None or not set(model.parameters()).issuperset(self.clipper.params):
            self.clipper = make_clipper(self._clipping, model, self._arguments)
        model.clip = State(self.clipper)

    def on_train_begin(self, logs: Any = None) -> None:
        """Clip what the optimizer is to apply; ``ValueError`` for what does not go with that."""
        inner = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        names = ("gradient_accumulation_steps", "loss_scale_factor")
        refused = {name: getattr(inner, name) for name in names}
        other, units = self.model.clip.clipper is not self.clipper, self.clipper.scope == "unit"
        refused |= {"another": other, "jit_compile": self.model.jit_compile, 'scope "unit"': units}
        if any(refused.values()):
            raise ValueError(f"Clip does not go with {', '.join(n for n in refused if refused[n])}")
        for name in ("clipnorm", "global_clipnorm", "clipvalue"):
            if own := getattr(inner, name):
                warn_of_own_clipping(f"{name}={own}", f"leave {name} out")
        clip_what_is_applied(self.clipper, inner)
        self._optimizer = inner

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Log the last step."""
        logs.update(self.clipper.history.latest("clip"))

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the optimizer as it was."""
        vars(self._optimizer).pop("apply", None)
