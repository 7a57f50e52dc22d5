"""A clipper in the Trainer of transformers: in its steps, its log and its checkpoints.

``max_grad_norm`` is 1.0 if nothing is said, and then the Trainer clips, too::

    ClippingTrainer(model, TrainingArguments("out", max_grad_norm=0.0), clipping="autoclip")
    class ClippingSeq2Seq(ClippingTrainer, Seq2SeqTrainer): ...  # so with any other Trainer
"""

from typing import Any

from transformers import Trainer

from cliplab.integrations.accelerate import attach
from cliplab.integrations.files import read_state, write_state
from cliplab.integrations.making import Clipping, make_clipper, warn_of_own_clipping


class ClippingTrainer(Trainer):
    """A ``Trainer`` that clips by ``clipper``, which every ``train()`` makes.
    Args:
        args, other: of ``Trainer``; ``UserWarning`` where ``max_grad_norm`` is above 0.
        clipping: a method's name, or a function of the model that returns a ``Clipper``.
        clipping_kwargs: the method's own parameters.
    """

    def __init__(self, *args: Any, clipping: Clipping, clipping_kwargs: Any = None, **other: Any):
        super().__init__(*args, **other)
        self.clipper: Any = None
        self._making = clipping, clipping_kwargs or {}
        if self.args.max_grad_norm > 0:
            warn_of_own_clipping(f"max_grad_norm={self.args.max_grad_norm}", "max_grad_norm=0.0")

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """First attach: the optimizer is prepared by now, and its weights are sharded."""
        if self.clipper is not None:
            self.clipper.detach()
        self.clipper = make_clipper(self._making[0], self.model, self._making[1])  # type: ignore
        attach(self.clipper, self.accelerator, self.optimizer, checkpoint=False)
        return super().create_scheduler(*args, **kwargs)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        return grad_norm  # the Trainer would clip at inf to measure it: one NaN makes all NaN

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the clipper's last step with the loss; ``grad_norm`` is what the clipper measured."""
        if "loss" in logs and self.clipper and len(self.clipper.history):
            logs |= self.clipper.history.latest("clip")
            if self.clipper.target == "gradient":
                logs.setdefault("grad_norm", logs["clip/norm_before"])
        super().log(logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            write_state(self.clipper, output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            read_state(self.clipper, checkpoint)
