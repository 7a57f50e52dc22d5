"""A short probe of raw gradient norms, and the threshold they suggest."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cliplab.checks import check_count
from cliplab.history import quantiles
from cliplab.norms import total_norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORDERS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
WARM_UP = 0.1  # share of the probe left out: the first norms are those of the initialisation
CLIPPED = 0.1  # wanted share of clipped steps: a limit on what is large, not a smaller step size
BAND = (0.5, 10.0)  # Pascanu et al. 2013, 3.2: these multiples of the typical norm converge
ESCAPED = 10.0  # beyond the band of the typical norm, and never back: the probe has diverged
FEWEST = 20  # stable steps: with fewer the 0.9 quantile rests on one or two of them


@dataclass(frozen=True, eq=False)
class Probe:
    """What a probe measured and recommends.

    ``norms`` are all raw norms ``[steps]``, ``stable`` marks those that were used, ``quantiles``
    maps orders to norms, ``band`` is 0.5 and 10 x their median, ``diverged`` says that norms
    left for good; ``threshold`` is NaN if too few steps were stable.
    """

    threshold: float
    norms: Tensor
    stable: Tensor
    quantiles: dict[float, float]
    band: tuple[float, float]
    diverged: bool
    advice: str

    @property
    def found(self) -> bool:
        """Whether there is a threshold."""
        return not math.isnan(self.threshold)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw norms, band and threshold; needs ``cliplab[lab]``."""
        from cliplab import plots

        return plots.probe(self, ax=ax)

    def __str__(self) -> str:
        return self.advice


def find_threshold(
    step_fn: Callable[[int], Any],
    steps: int = 200,
    *,
    params: nn.Module | Iterable[Tensor] | None = None,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Probe:
    """Call ``step_fn(step)`` for a short while and recommend a threshold from the raw norms.

    ``step_fn`` does forward and backward, and best an optimizer step at a small learning rate,
    without clipping. It returns the gradient norm; or, with ``params``, anything, or, with
    ``model``, nothing: the gradients are then cleared before every call and measured after it.

    ``threshold = min(q90, 10 x median)`` of the finite norms after the first tenth of the probe
    and before they leave for good: about one step in ten is clipped. Pascanu et al. (2013) take
    0.5 to 10 times the mean norm; one exploding step makes a mean meaningless, so it is the median
    here.

    ``model`` and ``optimizer`` are given back bit by bit as they were (weights, buffers, gradients,
    modes; state and options), and so is torch's random state; data that was read stays read.
    ``ValueError`` for a bad argument, a norm below 0, or no gradient at all.
    Source: after Pascanu, Mikolov, Bengio 2013, section 3.2.

    >>> find_threshold(lambda step: 1.0 + step % 10).threshold
    9.0
    """
    check_count("steps", steps)
    if isinstance(params, nn.Module):
        params = params.parameters()
    else_model = params is None and model is not None
    measured = list(model.parameters() if model and params is None else params or ())
    if params is not None and not measured:
        raise ValueError("no parameters to measure: params holds none")
    kept = () if model is None else (*model.parameters(), *model.buffers())
    if any(map(is_lazy, (*measured, *kept))):
        raise ValueError("a parameter is lazy, it has no shape yet: run a forward pass first")
    with _restored(model, optimizer):
        found = [_norm(step_fn, step, measured, else_model) for step in range(steps)]
    norms = torch.tensor([float(norm) for norm in found])  # only now: no wait in the loop
    if bool((norms < 0).any()):
        raise ValueError(f"step_fn must return norms >= 0, got {float(norms.min())}")
    if not bool((norms != 0).any()):
        raise ValueError("every norm was 0: does step_fn run backward() and leave the gradients?")
    return _recommend(norms)


def _norm(
    step_fn: Callable[[int], Any], step: int, measured: Sequence[Tensor], may_return: bool
) -> Tensor:
    for parameter in measured:
        parameter.grad = None
    returned = step_fn(step)
    if measured and (returned is None or not may_return):
        return total_norm([p.grad for p in measured if p.grad is not None])
    if returned is None:
        raise ValueError(
            "step_fn returned None: return the gradient norm, or give params= or model="
        )
    return torch.as_tensor(returned).detach().clone()


def _recommend(norms: Tensor) -> Probe:
    stable, diverged = _find_stable(norms)
    kept = norms[stable]
    of = dict(zip(ORDERS, quantiles(kept, ORDERS), strict=True))
    band = (BAND[0] * of[0.5], BAND[1] * of[0.5])
    threshold = math.nan
    if len(kept) >= FEWEST:
        threshold = float(f"{min(of[1 - CLIPPED], band[1]):.2g}")
    advice = _advise(threshold, of, band, len(kept), len(norms), diverged)
    return Probe(threshold, norms, stable, of, band, diverged, advice)


def _find_stable(norms: Tensor) -> tuple[Tensor, bool]:
    """Mark the steps to use; say whether the norms left for good (or were not finite)."""
    steps = torch.arange(len(norms))
    bad = ~norms.isfinite()
    end = int(bad.nonzero()[0]) if bad.any() else len(norms)
    typical = norms[: max(end // 2, 1)].median()
    inside = (norms[:end] <= ESCAPED * typical).nonzero()
    back = int(inside[-1]) + 1 if len(inside) else 0
    left = bool(bad.any()) or end - back > max(WARM_UP * len(norms), 1)
    begin = int(WARM_UP * len(norms))
    return (steps >= begin) & (steps < (back if left else end)) & (norms > 0), left


def _advise(
    threshold: float,
    of: dict[float, float],
    band: tuple[float, float],
    kept: int,
    steps: int,
    diverged: bool,
) -> str:
    lower = "Probe again at a tenth of the learning rate"
    if math.isnan(threshold):
        if not diverged:
            return f"Only {kept} of {steps} steps could be used, {FEWEST} are needed: probe longer."
        return f"The probe diverged: only {kept} of {steps} steps were stable. {lower}."
    text = (
        f"Threshold {threshold:g}: a tenth of the norms was larger (median {of[0.5]:.3g}, "
        f"{kept} of {steps} steps used). Values from {band[0]:.2g} to {band[1]:.2g} "
        "(0.5 to 10 x median) usually converge; with a lower one raise the learning rate, for "
        "where every step is clipped only learning rate x threshold matters."
    )
    if diverged:
        text += f" The probe diverged; this rests on the steps before that. {lower} to be sure."
    return text


@contextlib.contextmanager
def _restored(model: nn.Module | None, optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """Give back everything as it was, also after an error."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if started else ()
    undo = []
    if model is not None:
        undo += [_keep_modules(model), _keep_tensors((*model.parameters(), *model.buffers()))]
    if optimizer is not None:
        held = [p for group in optimizer.param_groups for p in group["params"]]
        undo += [_keep_options(optimizer, held), _keep_tensors(held)]
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            for restore in undo:
                restore()


def _keep_tensors(tensors: Sequence[Tensor]) -> Callable[[], None]:
    kept = [(t, t.detach().clone()) for t in tensors]
    grads = [(t, t.grad, None if t.grad is None else t.grad.clone()) for t in tensors]

    @torch.no_grad()
    def restore() -> None:
        for tensor, values in kept:
            tensor.copy_(values)
        for tensor, grad, old in grads:
            if grad is not None and old is not None:
                grad.copy_(old)
            tensor.grad = grad

    return restore


def _keep_modules(model: nn.Module) -> Callable[[], None]:
    kept = [(module, module.training, dict(module._buffers)) for module in model.modules()]

    def restore() -> None:
        for module, training, buffers in kept:
            module.training = training
            module._buffers.update(buffers)

    return restore


def _keep_options(optimizer: torch.optim.Optimizer, held: Sequence[Tensor]) -> Callable[[], None]:
    # Not by state_dict(): loading one casts the state to the parameters' dtype.
    same = {id(p): p for p in held}  # deepcopy must not copy the parameters
    state = {p: copy.deepcopy(optimizer.state[p], dict(same)) for p in optimizer.state}
    options = [
        {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]

    def restore() -> None:
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, kept in zip(optimizer.param_groups, options, strict=True):
            group.update(kept)

    return restore
