"""A short probe of raw gradient norms, and the threshold they suggest."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from cliplab.checks import check_count, described, tell
from cliplab.diagnosis.restore import restored
from cliplab.history import quantiles
from cliplab.norms import total_norm

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORDERS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
WARM_UP = 0.1  # share of the probe left out: the first norms are those of the initialisation
CLIPPED = 0.1  # wanted share of clipped steps: a limit on what is large, not a smaller step size
BAND = (0.5, 10.0)  # Pascanu et al. 2013, 3.2: these multiples of the typical norm converge
ESCAPED = 10.0  # beyond the band of the typical norm, and never back: the probe has diverged
ALIKE = 1e-4  # relative: norms that were clipped differ by rounding, and by torch's 1e-6
FEWEST = 20  # stable steps: with fewer the 0.9 quantile rests on one or two of them


@dataclass(frozen=True, eq=False)
class Probe:
    """What a probe measured and recommends.

    ``norms`` are all raw norms ``[steps]`` (fp64 if any was, else fp32), ``stable`` marks those
    that were used, ``quantiles`` maps orders to norms, ``band`` is 0.5 and 10 x their median,
    ``diverged`` says that norms left for good; ``threshold`` is NaN if too few steps were stable.

    Args:
        threshold: recommended limit (norm), NaN if there is none.
        norms: raw norms, ``[steps]``.
        stable: bools ``[steps]``.
        quantiles: norms by order.
        band: two norms.
        diverged: whether norms left for good.
        advice: what to do with it, in words.
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
        """Draw norms, band and threshold into ``ax``, or a new figure; needs ``cliplab[lab]``."""
        from cliplab import plots

        return plots.probe(self, ax=ax)

    def __str__(self) -> str:
        return self.advice


def find_threshold(
    step_fn: Callable[..., Any],
    steps: int = 200,
    *,
    params: nn.Module | Iterable[Tensor] | None = None,
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
) -> Probe:
    """Call ``step_fn(step)``, or ``step_fn()``, for a short while; recommend a threshold.

    ``step_fn`` does forward and backward, and best an optimizer step at a small learning rate,
    without clipping. It returns the gradient norm; or, with ``params``, anything, or, with
    ``model``, nothing: the gradients are then cleared before every call and measured after it.

    ``threshold = min(q90, 10 x median)`` of the finite norms after the first tenth of the probe
    and before they leave for good: about one step in ten is clipped. Pascanu et al. (2013) take
    0.5 to 10 times the mean norm; one exploding step makes a mean meaningless, so it is the median
    here. The threshold is one of the norms (or 10 x one), not rounded.

    ``model`` and ``optimizer`` are given back bit by bit as they were, in the same tensors
    (weights, buffers, gradients, modes; state, options and groups), and so are the gradients of
    ``params`` and the random states of torch, NumPy and Python, also if ``step_fn`` raises; data
    that was read stays read. ``ValueError`` for a bad argument, a lazy model that has not seen
    data, what is no norm, or no gradient at all. It warns of norms that look clipped already.
    Source: after Pascanu, Mikolov, Bengio 2013, section 3.2.

    Args:
        step_fn: a step of training, called with its number or without.
        steps: length of the probe (steps).
        params: whose gradients are measured; what ``step_fn`` returns is not looked at.
        model: the same, and it is given back as it was.
        optimizer: given back as it was.

    >>> find_threshold(lambda step: 1.0 + step % 10).threshold
    9.0
    """
    check_count("steps", steps)
    call = _with_step(step_fn)
    if not isinstance(model, nn.Module | None):
        raise ValueError(f"model must be a module, got {described(model)}")
    if not isinstance(optimizer, Optimizer | None):
        raise ValueError(f"optimizer must be an optimizer, got {described(optimizer)}")
    if isinstance(params, Optimizer):
        raise ValueError(f"params must be a module or tensors, got {described(params)}")
    if isinstance(params, nn.Module):
        params = params.parameters()
    else_model = params is None and model is not None
    measured = list(model.parameters() if model and params is None else params or ())
    if params is not None and not measured:
        raise ValueError("no parameters to measure: params holds none")
    _refuse_lazy(measured, model)
    with restored(model, optimizer, measured):
        found = [_norm(call, step, measured, else_model) for step in range(steps)]
    wide = torch.float64 if any(n.dtype is torch.float64 for n in found) else torch.float32
    values = [float(norm) for norm in found]  # only now: no wait in the loop
    norms = torch.tensor(values, dtype=wide, device="cpu")
    if bool((norms < 0).any()):
        raise ValueError(f"step_fn must return norms >= 0, got {float(norms.min())}")
    if not bool((norms != 0).any()):
        raise ValueError("every norm was 0: does step_fn run backward() and leave the gradients?")
    probe = _recommend(norms)
    if _piles_up(kept := norms[probe.stable]):
        tell(
            f"many of the largest norms are {float(kept.max()):.4g}, as if gradients were clipped "
            "already: take clipping out of step_fn, and detach() a clipper"
        )
    return probe


def _with_step(step_fn: Callable[..., Any]) -> Callable[[int], Any]:
    """``step_fn`` as a function of the step, whether or not it takes it."""
    if not callable(step_fn):
        raise ValueError(f"step_fn must be a function, got {described(step_fn)}")
    try:
        signature = inspect.signature(step_fn)
    except (TypeError, ValueError):  # of some that are built in there is none
        return step_fn
    for arguments in ((0,), ()):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return step_fn if arguments else lambda step: step_fn()
    raise ValueError(f"step_fn must take the step, or nothing; it takes {signature}")


def _refuse_lazy(measured: Sequence[Tensor], model: nn.Module | None) -> None:
    held = () if model is None else (*model.parameters(), *model.buffers())
    if any(map(is_lazy, (*measured, *held))):
        raise ValueError("a parameter is lazy, it has no shape yet: run a forward pass first")


def _norm(
    call: Callable[[int], Any], step: int, measured: Sequence[Tensor], may_return: bool
) -> Tensor:
    for parameter in measured:
        parameter.grad = None
    returned = call(step)
    if measured and (returned is None or not may_return):
        return total_norm([p.grad for p in measured if p.grad is not None])
    if returned is None:
        raise ValueError(
            "step_fn returned None: return the gradient norm, or give params= or model="
        )
    if isinstance(returned, Tensor) and returned.numel() == 1 and not returned.is_complex():
        return returned.detach().clone()
    if isinstance(returned, Real):
        return torch.tensor(float(returned), dtype=torch.float64, device="cpu")
    raise ValueError(f"step_fn must return a number, the norm, got {described(returned)}")


def _recommend(norms: Tensor) -> Probe:
    stable, diverged = _find_stable(norms)
    kept = norms[stable]
    of = dict(zip(ORDERS, quantiles(kept, ORDERS), strict=True))
    band = (BAND[0] * of[0.5], BAND[1] * of[0.5])
    threshold = math.nan
    if len(kept) >= FEWEST:
        threshold = min(of[1 - CLIPPED], band[1])
    larger = float((kept > threshold).double().mean()) if len(kept) else math.nan
    advice = _advise(threshold, larger, of, band, len(kept), len(norms), diverged)
    return Probe(threshold, norms, stable, of, band, diverged, advice)


def _piles_up(kept: Tensor) -> bool:
    """Whether far more than a tenth of the norms are the largest one, but for rounding."""
    if not len(kept):
        return False
    top = kept[kept >= (1 - ALIKE) * kept.max()]
    return len(top) > 2 * CLIPPED * len(kept) and len(set(top.tolist())) > 2


def _find_stable(norms: Tensor) -> tuple[Tensor, bool]:
    """Mark the steps to use; say whether the norms left for good (or were not finite)."""
    steps = torch.arange(len(norms), device="cpu")
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
    larger: float,
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
        f"Threshold {threshold:g}: {larger:.0%} of the norms were larger (median {of[0.5]:.3g}, "
        f"{kept} of {steps} steps used). Values from {band[0]:.2g} to {band[1]:.2g} "
        "(0.5 to 10 x median) usually converge; with a lower one raise the learning rate, for "
        "where every step is clipped only learning rate x threshold matters."
    )
    if diverged:
        text += f" The probe diverged; this rests on the steps before that. {lower} to be sure."
    return text
