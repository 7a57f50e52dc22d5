"""Stable-Baselines3 clips by a clipper: ``model.learn(10_000, callback=Clip("autoclip"))``."""

from math import inf
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from cliplab.clipper import Clipper
from cliplab.integrations.making import Clipping, make_clipper, warn_of_own_clipping


class Clip(BaseCallback):
    """Attach ``clipper`` when a model learns, log the means of its steps; ``model.save`` saves it.
    The next one, of the model that learns again or is loaded, goes on from there, but for ``del
    model.clip_of_policy``. ``ValueError`` for two of an optimizer, and for another method's state.
    Args:
        clipping: a method's name, or a function of the policy that returns a ``Clipper``.
        of: whose optimizer: "policy", "actor" or "critic"; else a ``ValueError``.
        arguments: the method's own parameters.
    """

    def __init__(self, clipping: Clipping, *, of: str = "policy", **arguments: Any) -> None:
        super().__init__()
        self.clipper: Clipper
        self._clipping, self._of, self._arguments = clipping, of, arguments
        self._key, self._tag = f"clip_of_{of}", "clip" if of == "policy" else f"clip/{of}"

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:  # what the model's file has of it
        return dict, (self.clipper.state_dict(plain=True),)

    def _on_training_start(self) -> None:
        names = [n for n in self.model.get_parameters() if n.endswith(".optimizer")]
        if f"{self._of}.optimizer" not in names:
            raise ValueError(f"{type(self.model).__name__} has {names}, got of={self._of!r}")
        if (own := getattr(self.model, "max_grad_norm", inf)) < inf:
            warn_of_own_clipping(f"max_grad_norm={own}", 'max_grad_norm=float("inf")')
        owner, (last,) = getattr(self.model, self._of), getattr(self.model, self._key, (None,))
        if isinstance(last, Clip):
            last.clipper.detach()  # if learning was interrupted
        if last is not self:
            net = getattr(owner, "q_net", owner)  # DQN's policy has a target beside it
            self.clipper = make_clipper(self._clipping, net, self._arguments)
            if last is not None:
                saved = last.clipper.state_dict() if isinstance(last, Clip) else last
                self.clipper.load_state_dict(saved)
            setattr(self.model, self._key, (self,))  # of a tuple SB3 pickles, and tells, no more
        self.clipper.attach(owner.optimizer)

    def _on_step(self) -> bool:
        if getattr(self.model, self._key) != (self,):
            raise ValueError(f"{self._of}.optimizer takes one Clip, got two")
        self.clipper.history.log_to(self._record, self._tag)()
        return True

    def _record(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.logger.record_mean(name, value)

    def _on_training_end(self) -> None:
        self.clipper.detach()
