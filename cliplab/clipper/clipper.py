"""The clipper: the engine as people make it, and what they do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from cliplab.clipper.attachment import Attachment
from cliplab.clipper.backward import InBackward
from cliplab.clipper.choices import Choices, Target
from cliplab.clipper.engine import Engine
from cliplab.clipper.given import GivenGradients, Slots
from cliplab.clipper.groups import Thresholds, policies_by_name, policy_of_groups
from cliplab.clipper.guard import Guard
from cliplab.clipper.microbatch import Microbatch
from cliplab.clipper.ranks import with_other_ranks
from cliplab.clipper.saving import load_state, state_of
from cliplab.clipper.telling import as_line, as_table, hinting, warn_of_zero
from cliplab.clipper.torchs import measured_by_torch
from cliplab.history import ClipReport, History
from cliplab.parts import Parameters, Scope, divide, select_parameters
from cliplab.thresholds import EntryDeviations, Mode, NonFinite

if TYPE_CHECKING:
    from cliplab.clipper.ranks import Reduce


class Clipper(Engine):
    """Clip gradients: ``g <- g * min(1, c / size)`` for every part of the gradient.

    Frozen parameters (``requires_grad=False``) are no part of it, plain tensors always are. What is
    unfrozen later is not clipped. Raises ``ValueError`` on a bad argument,
    ``NonFiniteGradientError`` at a non-finite gradient. Source: Pascanu, Mikolov, Bengio 2013.

    Args:
        params: a module, tensors, ``(name, tensor)`` pairs, or optimizer-style groups. One with
            ``clip=False`` is neither measured nor clipped; one with its own ``threshold`` is
            measured and clipped on its own.
        threshold: c, a number or a policy, which is copied; or by name, ``{"*.attn.*": 0.5, "*":
            1.0}``: the first pattern that matches rules a parameter, each must rule some and all
            together every one. What a pattern rules is a group with its own threshold, labelled by
            it; no other group has one then.
        scope: "global" (the whole gradient is one part), each param "group", each "tensor", each
            "unit" (an output row or filter; of bare tensors on the first axis, a module knows
            better), each "element" (value clipping, ``clamp(g, -c, c)``), or each "member" (leading
            axis of stacked models).
        norm_type: order p of the norm that is a part's size, > 0; ``inf`` takes the largest entry.
        mode: "rescale"; "soft" (``g * c / (c + size)``); "normalise" (``g * c / size``, also where
            that is more than ``g``: every part then has size c, but one of size 0 stays; Hazan,
            Levy, Shalev-Shwartz 2015); or "skip", which leaves the gradient and reports the step as
            skipped; through ``attach`` the optimizer takes no step then. No factor is above 2^126.
        nonfinite: "raise" (the error names the tensors), "skip" the step, "zero" the parts, or
            "propagate". On an accelerator "raise" does not wait: the error comes at a later
            ``clip`` or ``flush`` and names the step only.
        exclude: name patterns (``fnmatch``), each of which must match; names are those without
            wrappers (compile, DDP, FSDP, checkpointing), a tied weight has several.
        target: the "gradient", or the "update", through ``attach``: what the optimizer's step does
            to the weights, over its learning rate, ``u = (w (1 - lr wd) - w') / lr``, without
            weight decay where it is decoupled from the gradient (AdamW; wherever a param group says
            so). A step too large is held back after it was taken; the optimizer's state stays as it
            is. A learning rate of 0 makes a part inactive; no mode or ``nonfinite`` "skip".
        eps: added to every size where it is divided by: ``min(1, c / (n + eps))``, or ``c / (n +
            eps)`` with mode "normalise"; a part counts as clipped where ``n + eps > c``. With 1e-6
            and scope "global" it is ``torch.nn.utils.clip_grad_norm_`` bit for bit, wherever
            ``cliplab.clip_grad_norm_`` is. 0 is exact: what is at the limit is not touched.
        reduce: where ranks hold different plain tensors (pipeline stages, experts), the process
            group over which the powers ``|g|^p`` are summed, several in turn, or a function that
            sums a tensor ``[n_parts]`` over ranks (of powers in fp64, of 0 or 1 for what has a
            gradient; of numbers of entries when the clipper is made). A group's key "reduce" sums
            those of its tensors first: ``[{"params": dense}, {"params": experts, "reduce": ep}]``.
            All ranks then build the clipper and clip together, in the same groups, if need be
            without parameters; a tensor counts once for each rank that holds it. Scopes global and
            group. What a GradScaler finds must be known to all ranks.
        check_ranks: at the first step a ``RuntimeError`` on all ranks if their sizes differ, as
            where local gradients are clipped before they are synchronised. Not by default: it waits
            for all ranks, and some programs clip on one alone.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> Clipper([weight], threshold=1.0).clip().norm_before
    tensor(5.)
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """

    @hinting
    @torch.inference_mode(False)
    def __init__(
        self,
        params: Parameters,
        threshold: Thresholds = 1.0,
        *,
        scope: Scope = "global",
        norm_type: float = 2.0,
        mode: Mode = "rescale",
        nonfinite: NonFinite = "raise",
        exclude: str | Sequence[str] | None = None,
        target: Target = "gradient",
        eps: float = 0.0,
        reduce: Reduce | None = None,
        check_ranks: bool = False,
    ) -> None:
        choices = Choices(scope, norm_type, mode, nonfinite, target, eps, check_ranks)
        groups, reduces = select_parameters(
            params, exclude, policies_by_name(threshold), elsewhere=reduce is not None
        )
        partition, labels, group_of = divide(scope, groups, params)
        order = choices.norm_type
        partition = with_other_ranks(partition, labels, scope, order, reduce, reduces)
        if choices.eps and scope == "global":
            partition = measured_by_torch(partition)
        policy = policy_of_groups(threshold, groups, group_of)
        choices.check_policy(policy, partition)
        warn_of_zero(policy)
        policy.init(partition.n_parts, partition.device)
        if isinstance(policy, EntryDeviations):
            policy.hold(partition.params)
        scalar = scope in ("global", "element") and partition.n_parts == 1
        super().__init__(partition, policy, History(labels, scalar=scalar), choices)
        self._slots = Slots(self.params, partition.names, params)

    def clip(
        self, loss: float | Tensor | None = None, grads: GivenGradients | None = None
    ) -> ClipReport:
        """Clip the gradients in place and return what was done; ``loss`` is shown to the policy.

        ``grads`` are clipped instead of every ``.grad`` where they are given, in place too: a
        sequence in the order of ``params``, None where there is none, or a mapping of names to
        tensors, as ``torch.func.grad`` returns it; what has no name in it has no gradient.
        ``ValueError`` by name for another count, shape, dtype or device, for a name that is none
        of the module's, and for memory that two gradients or two entries of one share.

        A skipped step is reported, no more: whoever takes the step leaves it out (``if not
        report.skipped.any(): optimizer.step()``), or does so by ``guard``. ``attach`` sees to that
        by itself. ``RuntimeError`` with target "update", of which nothing is known here.

        >>> clipper = Clipper(torch.nn.Linear(2, 1), threshold=1.0)
        >>> grads = {"weight": torch.tensor([[3.0, 0.0]]), "bias": torch.tensor([4.0])}
        >>> clipper.clip(grads=grads).norm_before, grads["bias"]
        (tensor(5.), tensor([0.8000]))
        """
        if self.target == "update":
            raise RuntimeError('a clipper with target="update" works through attach(optimizer)')
        tensors = None if grads is None else self._slots.sorted(grads)
        if loss is not None:
            self.observe(loss)
        return ClipReport(self.step(tensors=tensors), self.history.scalar)

    def microbatch(self, scaler: GradScaler | None = None) -> Microbatch:
        """Clip what a backward pass adds, before it is accumulated: ``with clipper.microbatch():``.

        ``sum_i g_i * min(1, c / |g_i|)``, one step of the clipper for each micro-batch: no single
        one carries the sum away, and with one example each this is per-example clipping. The limit
        is that of an increment as it is accumulated: where each loss is divided by k, so that the
        sum is a mean, ``c / k`` holds the gradient of a micro-batch to c.

        ``scaler``: the ``GradScaler`` whose scaled loss is run backward inside; sizes are then in
        true units, and an increment that overflowed is added for the scaler to find, but shown to
        no policy. Otherwise a micro-batch that mode or nonfinite "skip" is dropped, and the others
        stay (on an accelerator zeros are added, nobody waits); with nonfinite "raise", or if
        anything else is raised inside, what was accumulated before is put back.

        One backward pass each; ``zero_grad`` stays outside. FSDP2: with
        ``set_requires_gradient_sync`` on for every pass. DDP: an increment is the mean over the
        ranks. Under ``no_sync`` it is the rank's own, and since DDP reduces only what its last pass
        writes, leave all passes unsynchronised and average ``.grad`` over the ranks afterwards.

        ``RuntimeError`` while the clipper is attached, for one micro-batch inside another, and for
        a scaler that has scaled nothing; ``ValueError`` for what is no scaler.

        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> clipper = Clipper([weight], threshold=1.0)
        >>> for slope in (100.0, 0.5):
        ...     with clipper.microbatch():
        ...         (slope * weight).backward()
        >>> weight.grad
        tensor([1.5000])
        """
        return Microbatch(self, scaler)

    def guard(self, optimizer: torch.optim.Optimizer | None = None) -> Guard:
        """Clip now, and hide the gradients if the step is to be skipped: for who owns the step.

        ``with clipper.guard(): optimizer.step()``; in a callback ``guard = clipper.guard(opt)``,
        and ``guard.close()`` after the step gives the gradients back. One that is never closed
        hides them for good: the next backward pass writes new ones. ``guard.report`` is the
        ``ClipReport``. Hidden are all gradients of ``optimizer``, else those of the clipper: a
        torch optimizer then moves nothing it hides. Optimizers from outside torch may count a step
        without gradients: only ``attach`` can leave theirs out.

        A clipper that may skip waits for the device here, any other does not. Under a
        ``GradScaler`` call its ``unscale_`` first. ``RuntimeError`` while the clipper is attached.
        """
        return Guard(self, optimizer)

    def attach(
        self,
        optimizer: torch.optim.Optimizer,
        *others: torch.optim.Optimizer,
        measure_update: bool = False,
    ) -> Attachment:
        """Clip at every ``optimizer.step()``; ``detach()``, or the handle's ``remove()``, ends it.

        Right under ``torch.amp.GradScaler`` (clips in true units) and gradient accumulation; the
        recorded learning rate is that of the group with the clipper's first parameter. A fused
        optimizer is handed the factor where there is one for all it holds: it then multiplies in
        its own pass, and ``p.grad`` is the raw gradient before and the clipped one after the step.
        Of a closure given to ``step`` every gradient is clipped as soon as it is computed. Of steps
        within a step the outermost is clipped; that with which ``torch.distributed.checkpoint``
        makes an optimizer's state is none.

        ``others``: further optimizers, for parameters of which some are stepped by each (Muon and
        AdamW); they have one norm. Each steps once a round, in any order; the first step of a round
        clips for all, so all gradients must be there, unscaled (``scaler.unscale_`` each), by then.

        ``measure_update`` also records the norm of the update, in units of the step over its
        learning rate, as ``history.update_norm``; it holds a copy of the weights during the step.

        A wrapper of one optimizer will do for that: clipped is what the wrapped one steps on. A
        wrapper or an LBFGS whose step may be skipped, an optimizer that holds only part of the
        clipper's trainable parameters, at ``attach`` or later, a clipper that is attached already,
        and an optimizer whose update cannot be limited are a ``ValueError``. Parameters that come
        to the optimizer later and are not the clipper's are a warning. Of several clippers on one
        optimizer each records what it did itself, not that another skipped the step; one attached
        later than a clipper that skips a step may not see that step.
        """
        return Attachment(self, [optimizer, *others], measure_update=measure_update)

    def clip_in_backward(self) -> InBackward:
        """Clip each gradient in the backward pass, as soon as it is accumulated.

        For optimizers that step in the backward pass: a hook registered afterwards by
        ``register_post_accumulate_grad_hook`` finds the clipped gradient, steps, and sets
        ``p.grad = None``. The numbers are those of ``clip()`` after the pass, one step of the
        clipper for each backward pass; a parameter without a gradient in it is not active. The
        handle is a context manager; its ``remove()``, or ``detach()``, ends it.

        For the scopes tensor, unit and element, modes rescale, soft and normalise, and policies
        that ask for no total norm; a function of ``Scheduled`` is asked for every parameter.
        Gradients are clipped as they lie in ``.grad``: not for accumulation, a ``GradScaler``
        (sizes are not in true units) or DDP (which reduces them later); under ``fully_shard`` they
        are reduced by then. Reentrant checkpointing makes a step of every segment.

        ``ValueError`` for other scopes, modes and policies; ``RuntimeError`` where the clipper is
        at work already, and from a hook that finds the gradient gone.

        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> clipper = Clipper([weight], threshold=1.0, scope="tensor")
        >>> handle = clipper.clip_in_backward()
        >>> hook = weight.register_post_accumulate_grad_hook(lambda p: print(p.grad))
        >>> (weight * torch.tensor([3.0, 4.0])).sum().backward()
        tensor([0.6000, 0.8000])
        >>> clipper.history.norm_before
        tensor([[5.]])
        """
        return InBackward(self)

    def detach(self) -> None:
        """Stop clipping at the optimizer's steps or in the backward pass, if the clipper does."""
        if self.attached is not None:
            self.attached.remove()

    def flush(self) -> None:
        """Wait for the device, and raise what ``nonfinite="raise"`` has found there."""
        self._watch.check(wait=True)

    def state_dict(self, plain: bool = False) -> dict[str, Any]:
        """Return step count, counts of steps, policy state and what they are of.

        The history is no part of it. ``plain`` gives lists for tensors, so that ``json`` writes
        and reads it without a bit of it changing (an infinite number is ``Infinity`` there); else
        ``torch.load(weights_only=True)`` reads what ``torch.save`` writes. Waits for the device.
        """
        return state_of(self, plain)

    @torch.inference_mode(False)
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Continue where the saved clipper stopped, plain or not; whole, or not at all.

        ``ValueError`` for a ``state`` of another kind: the method (the policies' types, whatever
        their parameters), scope, number of parts, target and norm type must be this clipper's,
        where the state names them; one of an older version does not name all, and is of gradients.
        Without ``strict`` it is enough that the policy's own state fits.
        """
        load_state(self, state, strict)

    def __repr__(self) -> str:
        return as_line(self)

    def _repr_html_(self) -> str:
        return as_table(self)
