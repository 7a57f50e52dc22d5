"""A clipper in a loop of Accelerate: at the optimizer's step, and in what ``save_state`` saves.

After ``prepare``; accumulate, backward and step stay as they are::

    clipper = cliplab.create("autoclip", model)
    attach(clipper, accelerator, optimizer)
    ...  # after optimizer.step():
    accelerator.log(clipper.history.latest("clip"), step=clipper.steps)
"""

from typing import Any

from accelerate import Accelerator, DistributedType  # type: ignore[import-untyped]
from accelerate.optimizer import AcceleratedOptimizer  # type: ignore[import-untyped]

from cliplab.checks import described
from cliplab.clipper import Attachment, Clipper


def attach(
    clipper: Clipper,
    accelerator: Accelerator,
    *optimizers: Any,
    measure_update: bool = False,
    checkpoint: bool = True,
) -> Attachment:
    """Clip at every step that prepared optimizers really take, and save the clipper's state.

    ``ValueError`` for what is no ``Accelerator``, under DeepSpeed and Megatron-LM, which clip and
    step in engines of their own, and under FSDP 1, whose shards do not say that they are some.

    Args:
        clipper: made after ``prepare``.
        accelerator: that prepared the optimizers.
        optimizers: prepared; several have one norm.
        measure_update: that of ``Clipper.attach``.
        checkpoint: whether ``save_state`` and ``load_state`` are to know the clipper.
    """
    if not isinstance(accelerator, Accelerator):
        raise ValueError(f"accelerator must be an Accelerator, got {described(accelerator)}")
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(f"{kind.value} steps in an engine of its own: use the clipping it has")
    if kind == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise ValueError("the shards of FSDP 1 cannot be told from whole weights: use FSDP 2")
    attachment = clipper.attach(*map(_inner, optimizers), measure_update=measure_update)
    for optimizer in optimizers:
        if isinstance(optimizer, AcceleratedOptimizer):  # under fp16 it took hold of a step: again
            optimizer.__setstate__(optimizer.__getstate__())
    if checkpoint and not any(held is clipper for held in accelerator._custom_objects):
        accelerator.register_for_checkpointing(clipper)
    return attachment


def _inner(optimizer: Any) -> Any:
    """What steps, and may be skipped."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    return optimizer
