"""What was recorded: a history, and a probe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from cliplab.plots.style import COLOURS, WIDE, legend_below, log_scale, plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class _Recorded(Protocol):
    """What is drawn of recorded steps: columns ``[steps]`` or ``[steps, n_parts]``."""

    first_step: int

    def __len__(self) -> int: ...
    @property
    def part_names(self) -> list[str]: ...
    @property
    def norm_before(self) -> Tensor: ...
    @property
    def threshold(self) -> Tensor: ...
    @property
    def factor(self) -> Tensor: ...
    @property
    def clipped(self) -> Tensor: ...
    @property
    def nonfinite(self) -> Tensor: ...
    @property
    def lr(self) -> Tensor: ...
    @property
    def effective_lr(self) -> Tensor: ...


class _Probed(Protocol):
    """What is drawn of a probe: its norms ``[steps]`` and what they suggest."""

    @property
    def norms(self) -> Tensor: ...
    @property
    def stable(self) -> Tensor: ...
    @property
    def band(self) -> tuple[float, float]: ...
    @property
    def threshold(self) -> float: ...
    @property
    def found(self) -> bool: ...


class _Clipper(Protocol):
    """What has such a record."""

    @property
    def history(self) -> _Recorded: ...


def _record(given: _Recorded | _Clipper) -> _Recorded:
    """The history that was given, or that of the clipper that was given."""
    record: Any = getattr(given, "history", given)
    if not hasattr(record, "norm_before"):
        raise ValueError(f"expected a History or a Clipper, got {type(given).__name__}")
    return cast("_Recorded", record)


def history(history: _Recorded | _Clipper, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw raw norms, the threshold in force, and clipped steps of a scalar history.

    A clipper stands for its history. ``ValueError`` for one with several parts: ``overview``.

    Args:
        history: of one part, or a clipper.
        title: of the figure.
        ax: where to draw; None: a new figure.
    """
    record = _record(history)
    norms = record.norm_before.cpu()
    if norms.ndim > 1:
        raise ValueError(f"the history has {norms.shape[1]} parts: draw it with plots.overview")
    ax = ax or plt.gca()
    steps = torch.arange(len(norms), device="cpu")
    finite, clipped = norms.isfinite(), record.clipped.cpu() & norms.isfinite()
    ax.plot(steps[finite], norms[finite], color=COLOURS[0], lw=0.8, label="raw norm")
    ax.plot(steps[clipped], norms[clipped], ".", color=COLOURS[6], ms=4, label="clipped")
    limits = record.threshold.cpu()
    if limits.isfinite().any():
        ax.plot(steps, limits, color=COLOURS[1], ls="--", label="threshold")
    for step in steps[~finite].tolist()[:1]:
        ax.axvline(step, color=COLOURS[6], ls=":", label="not finite")
    ax.set(xlabel="update", ylabel="gradient norm (L2)", title=title)
    log_scale(ax)
    if len(norms):
        ax.legend(frameon=False)
    return ax


def overview(
    history: _Recorded | _Clipper, *, title: str = "", figure: Figure | None = None
) -> Figure:
    """Draw norm and threshold, the effective learning rate, and how often what was clipped.

    With parts the first two panels show the median part and the range of all; the third has a bar
    for each of the (at most 20) parts that were clipped most, or, without parts, the share of
    clipped steps over time. Where no learning rate is known the factor is drawn instead. A clipper
    stands for its history.

    Args:
        history: of any number of parts, or a clipper.
        title: of the figure.
        figure: where to draw; None: a new one.
    """
    history = _record(history)
    figure = figure or plt.figure(figsize=WIDE, layout="constrained")
    norm_ax, lr_ax, share_ax = figure.subplots(1, 3)
    steps = torch.arange(len(history), device="cpu") + history.first_step
    _band(norm_ax, steps, history.norm_before, COLOURS[0], "raw norm")
    _band(norm_ax, steps, history.threshold, COLOURS[1], "threshold", ls="--")
    bad = _by_part(history.nonfinite).any(dim=1)
    if bad.any():
        top = norm_ax.get_xaxis_transform()
        ones = [1.0] * int(bad.sum())
        norm_ax.plot(steps[bad], ones, "|", color=COLOURS[6], transform=top, label="not finite")
    norm_ax.set(xlabel="update", ylabel="gradient norm (L2)", title=title or "Norm")
    known = history.lr.isfinite().any()
    effective = history.effective_lr if known else history.factor
    _band(lr_ax, steps, effective, COLOURS[3], "lr × factor" if known else "factor")
    if known:
        lr_ax.plot(steps, history.lr, color=COLOURS[0], ls=":", lw=1, label="lr")
    lr_ax.set(xlabel="update", ylabel="learning rate" if known else "factor")
    lr_ax.set_title("Effective learning rate" if known else "Factor")
    for ax in (norm_ax, lr_ax):
        log_scale(ax)
        legend_below(ax)
    _clip_shares(share_ax, steps, history)
    return figure


def _by_part(values: Tensor) -> Tensor:
    return (values if values.ndim == 2 else values[:, None]).cpu()


def _band(ax: Axes, steps: Tensor, values: Tensor, colour: str, label: str, ls: str = "-") -> None:
    """Draw the median of the parts as a line, their range as a band; nothing for no numbers."""
    values = _by_part(values).float()
    values = values.where(values.isfinite() & (values > 0), torch.nan)
    if not values.isfinite().any():
        return
    ax.plot(steps, values.nanmedian(dim=1).values, color=colour, ls=ls, lw=1, label=label)
    if values.shape[1] > 1:
        low, high = (
            end.where(end.isfinite(), torch.nan)
            for end in (
                values.nan_to_num(torch.inf).amin(dim=1),
                values.nan_to_num(-torch.inf).amax(dim=1),
            )
        )
        ax.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)


def _clip_shares(ax: Axes, steps: Tensor, history: _Recorded, most: int = 20) -> None:
    clipped = history.clipped.cpu().float()
    if clipped.ndim == 1:
        width = max(len(steps) // 20, 1)
        padded = torch.nn.functional.pad(clipped.cumsum(0), (1, 0))
        share = (padded[width:] - padded[:-width]) / width
        ax.plot(steps[width - 1 :], share, color=COLOURS[6])
        ax.set(xlabel="update", ylabel=f"share of the last {width} clipped", ylim=(-0.02, 1.02))
    else:
        share, order = clipped.mean(dim=0).sort(descending=True)
        names = [history.part_names[i] for i in order[:most]]
        ax.barh(range(len(names)), share[:most].tolist(), color=COLOURS[6])
        ax.set_yticks(range(len(names)), names, size=8)
        ax.invert_yaxis()
        ax.set(xlabel="share of steps clipped", xlim=(0, 1))
        ax.grid(axis="y", visible=False)
    ax.set_title("Clipped")


def probe(probe: _Probed, *, ax: Axes | None = None) -> Axes:
    """Draw the norms of a probe, the band of its rule and the threshold recommended.

    Args:
        probe: what ``find_threshold`` returned.
        ax: where to draw; None: a new figure.
    """
    ax = ax or plt.gca()
    norms, stable = probe.norms, probe.stable
    steps = torch.arange(len(norms), device="cpu")
    finite = norms.isfinite() & (norms > 0)
    ax.plot(steps[finite], norms[finite], color="0.6", lw=1, label="raw norm")
    ax.plot(steps[stable], norms[stable], color=COLOURS[0], lw=1, label="used")
    if not finite.all():
        ax.axvline(int((~finite).nonzero()[0]), color=COLOURS[6], ls=":", label="not finite or 0")
    if probe.found:
        ax.axhspan(*probe.band, color=COLOURS[1], alpha=0.1, lw=0, label="0.5 to 10 × median")
        name = f"threshold {probe.threshold:g}"
        ax.axhline(probe.threshold, color=COLOURS[1], ls="--", label=name)
    ax.set(xlabel="probe step", ylabel="gradient norm (L2)")
    log_scale(ax)
    legend_below(ax, ncols=2)
    return ax
