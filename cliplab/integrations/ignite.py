"""Ignite clips by a clipper: ``attach(clipper, trainer, optimizer)`` before ``trainer.run``.

Its state goes into a checkpoint as any other: ``Checkpoint({"clipper": clipper, ...}, ...)``.
"""

from typing import Any

from ignite.engine import Engine, Events

from cliplab.checks import check_count, described
from cliplab.clipper import Clipper


def attach(
    clipper: Clipper,
    trainer: Engine,
    optimizer: Any,
    *others: Any,
    tag: str = "clip",
    every: int = 1,
) -> None:
    """Clip at every step of the optimizer, and tell the trainer's loggers of it.

    The last step is in ``trainer.state.metrics``, as ``tag/norm_before`` and so on, for handlers
    that are attached afterwards; reading it waits for the device. ``clipper.detach()`` ends it.
    ``ValueError`` for a trainer that is no ``Engine``, and as of ``clipper.attach``.

    Args:
        clipper: as it was made.
        trainer: an ignite ``Engine``.
        optimizer: what is stepped.
        others: further optimizers, with one norm over all.
        tag: of the metrics.
        every: how often they are read (iterations).
    """
    if not isinstance(trainer, Engine):
        raise ValueError(f"trainer must be an ignite Engine, got {described(trainer)}")
    event = Events.ITERATION_COMPLETED(every=check_count("every", every))
    clipper.attach(optimizer, *others)
    handle = clipper.attached

    def tell() -> None:
        if clipper.attached is handle:
            trainer.state.metrics.update(clipper.history.latest(tag))

    trainer.add_event_handler(event, tell)
