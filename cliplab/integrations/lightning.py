"""Lightning clips by a clipper: ``Trainer(callbacks=[Clip("autoclip", percentile=10)])``."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cliplab.clipper import Clipper
from cliplab.integrations.making import Clipping, make_clipper, warn_of_own_clipping


class Clip(Callback):
    """Attach ``clipper`` when a fit begins, save and log it; without ``ckpt_path`` it begins anew.
    Args:
        clipping: a method's name, or a function of the module that returns a ``Clipper``.
        tag: of its log. Several optimizers take a ``Clip`` of a function each, by other tags.
        arguments: the method's own parameters.
    """

    def __init__(self, clipping: Clipping, *, tag: str = "clip", **arguments: Any) -> None:
        self.clipper: Clipper | None = None
        self._clipping, self._tag, self._arguments = clipping, tag, arguments

    @property
    def state_key(self) -> str:
        """Its name in a checkpoint."""
        return self._generate_state_key(tag=self._tag)

    def setup(self, *_: Any, **__: Any) -> None:
        """Forget what an earlier run has loaded."""
        self._loaded: dict[str, Any] = {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until there is a clipper."""
        self._loaded = state_dict

    def state_dict(self) -> dict[str, Any]:
        """The clipper's."""
        return self.clipper.state_dict() if self.clipper else {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach: by now the parameters are where they stay, and a checkpoint has been read."""
        if trainer.gradient_clip_val:
            warn_of_own_clipping("Trainer(gradient_clip_val=...)", "leave it out")
        self.clipper = clipper = make_clipper(self._clipping, pl_module, self._arguments)
        if self._loaded:
            clipper.load_state_dict(self._loaded)
        mine = set(clipper.params)
        held = [mine & {p for g in o.param_groups for p in g["params"]} for o in trainer.optimizers]
        clipper.detach()
        clipper.attach(trainer.optimizers[held.index(max(held, key=len))])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Log the last step, if the trainer is about to log: reading it waits for the device."""
        if self.clipper and trainer._logger_connector.should_update_logs:
            pl_module.log_dict(self.clipper.history.latest(self._tag))

    def on_train_end(self, *_: Any) -> None:
        """Detach."""
        if self.clipper:
            self.clipper.detach()
