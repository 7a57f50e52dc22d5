"""skorch clips by a clipper: ``NeuralNet(module, callbacks=[Clip("autoclip", percentile=10)])``."""

from typing import Any

from skorch import NeuralNet  # type: ignore[import-untyped]
from skorch.callbacks import Callback, GradientNormClipping  # type: ignore[import-untyped]

from cliplab.integrations.making import Clipping, make_clipper, warn_of_own_clipping


class Clip(Callback):  # type: ignore[misc]
    """Make ``net.clipper_`` and attach it.

    It is made when training begins, anew for another module or other arguments (they can be set, as
    ``callbacks__Clip__percentile``), is attached to ``net.optimizer_``, and recorded in the batches
    of ``net.history``. It is pickled with the net; ``Checkpoint(f_clipper="clipper.pt")`` saves its
    state. ``ValueError`` for two of a net.

    Args:
        clipping: a method's name, or a function of the module that returns a ``Clipper``.
        arguments: the method's own parameters.
    """

    def __init__(self, clipping: Clipping, **arguments: Any) -> None:
        self.clipping = clipping
        self.__dict__.update(arguments)  # by name, as skorch's parameters are

    def on_train_begin(self, net: NeuralNet, *_: Any, **__: Any) -> None:
        """Attach. Call it by hand where a state is to be loaded before training begins."""
        others = [callback for _, callback in net.callbacks_ if callback is not self]
        if any(isinstance(other, Clip) for other in others):
            raise ValueError("a net takes one Clip, got two")
        for other in others:
            if isinstance(other, GradientNormClipping) and other.gradient_clip_value is not None:
                warn_of_own_clipping("GradientNormClipping", "leave that callback out")
        arguments, last = self.get_params(deep=False), getattr(net, "clipper_", None)
        if last is not None:
            last.detach()  # if training was interrupted
        theirs = set(net.module_.parameters())
        if last is None or net.clipping_ != arguments or not theirs.issuperset(last.params):
            net.clipping_ = arguments.copy()
            net.clipper_ = make_clipper(arguments.pop("clipping"), net.module_, arguments)
        if "clipper_" not in net.cuda_dependent_attributes_:  # pickled where the module is
            net.cuda_dependent_attributes_ = [*net.cuda_dependent_attributes_, "clipper_"]
        net.clipper_.attach(net.optimizer_)

    def on_batch_end(self, net: NeuralNet, *_: Any, training: bool = False, **__: Any) -> None:
        """Record the step."""
        for name, value in net.clipper_.history.latest("clip").items() if training else ():
            net.history.record_batch(name, value)

    def on_train_end(self, net: NeuralNet, *_: Any, **__: Any) -> None:
        """Detach."""
        net.clipper_.detach()
