"""A clipper at work on every step of an optimizer, or of several."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cliplab.checks import may_look
from cliplab.clipper.amp import scale_and_flag
from cliplab.clipper.engine import Engine, Signal
from cliplab.clipper.fast_step import handing_over_pays
from cliplab.clipper.handle import Handle
from cliplab.clipper.holding import Holding
from cliplab.clipper.site import Site
from cliplab.clipper.skipping import is_first_momentum_step
from cliplab.clipper.update import Update
from cliplab.norms import total_norm
from cliplab.parts import version
from cliplab.thresholds import AnyStep, as_column


class Attachment(Handle):
    """A clipper at work on every step of optimizers; a context manager, or ``remove()`` it.

    Several optimizers step one after the other: a round. The first step of a round clips for all.

    Args:
        engine: the clipper; ``clipper.attach(...)`` makes its attachment.
        optimizers: on whose steps it is at work.
        measure_update: whether the norm of the update is recorded, too.
    """

    def __init__(
        self, engine: Engine, optimizers: Sequence[Any], *, measure_update: bool = False
    ) -> None:
        if engine.attached:
            raise ValueError("the clipper is already attached to an optimizer: detach() it first")
        self.engine = engine
        self._skips = "skip" in (engine.mode, engine.nonfinite)
        limits = engine.target == "update"
        self._sites = [Site(given, skips=self._skips, limits=limits) for given in optimizers]
        if len({id(optimizer) for optimizer in self._optimizers}) < len(self._sites):
            raise ValueError("attach was given the same optimizer twice")
        self._holding = Holding(engine.params, self._optimizers)
        takes = all(p.dtype is not torch.float64 for p in engine.params)  # the factor is fp32
        self._pays = takes and handing_over_pays(engine.params)
        self._update: Update | None = None
        if measure_update or limits:
            self._update = Update(engine, self._optimizers, measures=measure_update)
        self._round: list[Site] = []
        self._seen: list[tuple[Tensor | None, int]] = []  # the gradients of a round that goes on
        self._step: AnyStep | None = None
        for site in self._sites:
            site.hook(self._before, self._after)
        engine.attached = self

    def remove(self) -> None:
        """Stop clipping."""
        for site in self._sites:
            site.remove()
        if self.engine.attached is self:
            self.engine.attached = None

    def __repr__(self) -> str:
        names = ", ".join(site.name for site in self._sites)
        return f"Attachment({names}, {'at work' if self.engine.attached is self else 'removed'})"

    @property
    def _optimizers(self) -> list[Any]:
        optimizers = [site.optimizer for site in self._sites]
        if any(optimizer is None for optimizer in optimizers):
            raise RuntimeError(f"{self} has lost an optimizer, which is gone: detach() the clipper")
        return optimizers

    def _before(
        self, site: Site, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not site.begins(optimizer):
            return None
        closes = any(callable(x) for x in (*args[1:], *kwargs.values()))
        if closes and len(self._sites) > 1:
            raise RuntimeError(
                "cannot clip gradients that a closure computes inside the step of one of several "
                "optimizers: compute them before the first step"
            )
        if not closes and self._only_makes_state(optimizer):
            return None
        if self._round and (site in self._round or self._finds_others(optimizer)):
            self._begin_again()
        opens = not self._round
        self._round.append(site)
        if opens:
            self._holding.follow(self._optimizers)
            if self._update is not None:
                self._update.begin(self._holding.shares(self._optimizers))
        if self.engine.target == "update":
            self._note_gradients()
            return None
        if not closes:
            self._clip(site, kwargs, opens=opens)
            return None
        wrap = functools.partial(self._with_clipping, site, kwargs)
        return tuple(map(wrap, args)), {name: wrap(value) for name, value in kwargs.items()}

    def _after(
        self, site: Site, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        dropped = scale_and_flag(optimizer, kwargs)[1] if self._update is not None else None
        if not site.ends(optimizer) or len(self._round) < len(self._sites):
            return
        self._end_round()
        if self._update is not None:
            self._update.end(self._lr(), dropped)

    def _note_gradients(self) -> None:
        """Keep what the other steps of a round must find."""
        if len(self._sites) > 1:
            grads = [p.grad for p in self.engine.params]
            self._seen = [(grad, 0 if grad is None else version(grad)) for grad in grads]

    def _finds_others(self, optimizer: Any) -> bool:
        """Whether the gradients of a later step of a round are not those of the first one.

        ``RuntimeError`` if they are, and were written to.
        """
        shares = self._holding.shares(self._optimizers)
        for i in (i for share in shares if share.optimizer is optimizer for i in share.held):
            grad, written = self.engine.params[i].grad, self._seen[i][1]
            if grad is not self._seen[i][0]:
                return True
            if grad is not None and version(grad) != written:
                self._end_round()
                raise RuntimeError(
                    f"the gradients of {type(optimizer).__name__} changed in place after another "
                    "optimizer's step had clipped for all: compute all gradients before the first "
                    "step, and let zero_grad set them to None"
                )
        return False

    def _begin_again(self) -> None:
        """A new round, while optimizers of the last have not stepped, or a step has failed."""
        others = [site.name for site in self._sites if site not in self._round]
        self._end_round()
        if others and self._update is not None:
            raise RuntimeError(
                f"a new round begins before a step of {', '.join(others)}: an update is measured "
                "when each of the optimizers has stepped once"
            )

    def _end_round(self) -> None:
        self._round, self._seen = [], []

    def _with_clipping(self, site: Site, kwargs: dict[str, Any], argument: Any) -> Any:
        """An argument of a step; of a closure one that clips what it has computed."""
        if not callable(argument) or argument is site.optimizer:
            return argument
        closure: Callable[..., Any] = argument
        versions = list(map(version, self.engine.params))

        def clipped(*args: Any, **given: Any) -> Any:
            loss = closure(*args, **given)
            moved = list(map(version, self.engine.params)) != versions
            self._clip(site, kwargs, opens=True, loss=loss, moved=moved)
            return loss

        return clipped

    def _only_makes_state(self, optimizer: Any) -> bool:
        """Whether a step is the one that ``torch.distributed.checkpoint`` takes to make the state.

        Then there is none yet, and every learning rate and every gradient is 0. A warm-up from a
        learning rate of 0 begins so, too, but has gradients: only then is a value looked at.
        """
        if optimizer.state:
            return False
        for group in optimizer.param_groups:
            lr = group.get("lr")
            if lr is None or (isinstance(lr, Tensor) and not may_look(lr)) or float(lr) != 0:
                return False
        grads = [grad for grad in self.engine.partition.read() if grad is not None]
        return float(total_norm(grads)) == 0

    def _clip(
        self,
        site: Site,
        kwargs: dict[str, Any],
        *,
        opens: bool,
        loss: Any = None,
        moved: bool = False,
    ) -> None:
        """Clip what the round is about to take, and see to it that it takes that or nothing."""
        optimizer = site.optimizer
        hand_over = site.fused and self._is_whole()
        scale, dropped = scale_and_flag(optimizer, kwargs)
        if scale is not None and len(self._sites) > 1:
            raise RuntimeError(
                "the gradients of several optimizers are still scaled: call "
                "scaler.unscale_(optimizer) for each of them before the first step"
            )
        if opens or self._step is None:
            try:
                self._step = self.engine.step(Signal(self._lr(), scale, dropped, hand_over))
            except BaseException:
                site.forget_flags()
                self._end_round()
                raise
            self._note_gradients()
        step = self._step
        if hand_over:
            _lend_factor(site, as_column(step.factor)[0], scale)
        if not self._skips and (dropped is None or not is_first_momentum_step(optimizer)):
            return
        skipped = as_column(step.skipped).any()
        whole = not self.engine.partition.sharded
        if not (self._skips and whole and site.flag(skipped, dropped)) and bool(skipped):
            if moved:
                raise RuntimeError(
                    f"cannot skip the step: {site.name} moved the weights before its closure"
                )
            if self._update is not None:
                self._update.leave_out()
            site.leave_out(loss)

    def _lr(self) -> float | Tensor:
        lr = self._holding.rate(self._optimizers)
        if not isinstance(lr, Tensor):
            return lr  # type: ignore[no-any-return]
        return float(lr) if may_look(lr) else lr.detach().clone()

    def _is_whole(self) -> bool:
        """Whether one factor serves all that the optimizer holds."""
        engine = self.engine
        return (
            engine.scope == "global"
            and engine.partition.n_parts == 1
            and engine.nonfinite != "zero"
            and not engine.partition.sharded
            and self._pays
            and self._holding.whole
        )


def _lend_factor(site: Site, factor: Tensor, scale: Tensor | None) -> None:
    """Let the fused kernel divide by ``scale / factor``."""
    if scale is None and may_look(factor) and float(factor) == 1.0:
        return
    site.lend("grad_scale", (1.0 if scale is None else scale) / factor.float())
