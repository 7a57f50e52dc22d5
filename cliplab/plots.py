"""Figures of a history, of arms against each other, and of a map; needs ``cliplab[lab]``.

May use: nothing.
Makes numbers: no.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

try:
    import matplotlib.pyplot as plt
    import seaborn as sns
except ImportError as error:
    raise ImportError(f"figures need pip install 'cliplab[lab]' ({error})") from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

# Okabe and Ito's colours: distinct for colour-blind readers. Black is always "no clipping".
COLOURS = ["#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"]

WIDE = (12.0, 3.7)  # three panels (inches)


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


def theme() -> None:
    """Set the style of all figures."""
    style = {"axes.titleweight": "bold", "axes.titlesize": "medium", "figure.dpi": 110}
    style |= {"figure.constrained_layout.use": True}
    sns.set_theme("notebook", style="whitegrid", palette=COLOURS, rc=style)


def history(history: _Recorded, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw raw norms, the threshold in force, and clipped steps of a scalar history (log scale)."""
    ax = ax or plt.gca()
    norms = history.norm_before.cpu()
    steps = torch.arange(len(norms))
    finite, clipped = norms.isfinite(), history.clipped.cpu() & norms.isfinite()
    ax.plot(steps[finite], norms[finite], color=COLOURS[0], lw=0.8, label="raw norm")
    ax.plot(steps[clipped], norms[clipped], ".", color=COLOURS[6], ms=4, label="clipped")
    limits = history.threshold.cpu()
    if limits.isfinite().any():
        ax.plot(steps, limits, color=COLOURS[1], ls="--", label="threshold")
    for step in steps[~finite].tolist()[:1]:
        ax.axvline(step, color=COLOURS[6], ls=":", label="not finite")
    ax.set(yscale="log", xlabel="update", ylabel="gradient norm (L2)", title=title)
    ax.legend(frameon=False)
    return ax


def overview(history: _Recorded, *, title: str = "", figure: Figure | None = None) -> Figure:
    """Draw norm and threshold, the effective learning rate, and how often what was clipped.

    With parts the first two panels show the median part and the range of all; the third has a bar
    for each of the (at most 20) parts that were clipped most, or, without parts, the share of
    clipped steps over time. Where no learning rate is known the factor is drawn instead.
    """
    figure = figure or plt.figure(figsize=WIDE, layout="constrained")
    norm_ax, lr_ax, share_ax = figure.subplots(1, 3)
    steps = torch.arange(len(history)) + history.first_step
    _band(norm_ax, steps, history.norm_before, COLOURS[0], "raw norm")
    _band(norm_ax, steps, history.threshold, COLOURS[1], "threshold", ls="--")
    bad = _by_part(history.nonfinite).any(dim=1)
    if bad.any():
        top = norm_ax.get_xaxis_transform()
        ones = torch.ones(int(bad.sum()))
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
        if any((line.get_ydata() > 0).any() for line in ax.get_lines()):
            ax.set_yscale("log")
        _legend_below(ax)
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
        padded = torch.cat([torch.zeros(1), clipped.cumsum(0)])
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


def _legend_below(ax: Axes, ncols: int = 3) -> None:
    if ax.get_legend_handles_labels()[0]:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
        ax.legend(frameon=False, ncols=ncols, fontsize=9, **below)


def probe(probe: _Probed, *, ax: Axes | None = None) -> Axes:
    """Draw the norms of a probe, the band of its rule and the threshold recommended."""
    ax = ax or plt.gca()
    norms, stable = probe.norms, probe.stable
    steps = torch.arange(len(norms))
    finite = norms.isfinite() & (norms > 0)
    ax.plot(steps[finite], norms[finite], color="0.6", lw=1, label="raw norm")
    ax.plot(steps[stable], norms[stable], color=COLOURS[0], lw=1, label="used")
    if not finite.all():
        ax.axvline(int((~finite).nonzero()[0]), color=COLOURS[6], ls=":", label="not finite or 0")
    if probe.found:
        ax.axhspan(*probe.band, color=COLOURS[1], alpha=0.1, lw=0, label="0.5 to 10 × median")
        name = f"threshold {probe.threshold:g}"
        ax.axhline(probe.threshold, color=COLOURS[1], ls="--", label=name)
    ax.set(yscale="log", xlabel="probe step", ylabel="gradient norm (L2)")
    _legend_below(ax, ncols=2)
    return ax


def shares(
    rows: Iterable[Mapping[str, Any]],
    *,
    x: str,
    hue: str,
    value: str,
    ax: Axes,
    order: Sequence[str],
    colours: Mapping[str, str] | None = None,
) -> Axes:
    """Draw the share of runs with ``value`` true, one bar per ``x`` and ``hue``, labelled k/n."""
    frame = _frame(rows)
    keys = sorted(frame[x].unique())
    width = 0.8 / len(order)
    for i, label in enumerate(order):
        for j, key in enumerate(keys):
            own = frame[(frame[hue] == label) & (frame[x] == key)][value]
            place = j + (i - (len(order) - 1) / 2) * width
            if len(own):
                bar = own.mean()
                name = label if j == 0 else None
                ax.bar(place, bar, width * 0.92, color=_colour(label, i, colours), label=name)
                ax.text(place, bar + 0.02, f"{int(own.sum())}/{len(own)}", ha="center", size=9)
    ax.set_xticks(range(len(keys)), [f"{key:g}" for key in keys])
    ax.set(ylim=(0, 1.18), yticks=[0, 0.5, 1])
    ax.legend(frameon=False, ncols=len(order), loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return ax


def runs(
    rows: Iterable[Mapping[str, Any]],
    *,
    x: str,
    y: str,
    ax: Axes,
    order: Sequence[str],
    colours: Mapping[str, str] | None = None,
    chance: float | None = None,
) -> Axes:
    """Draw every run as a dot beside its arm's mean; diverged runs are crosses at chance."""
    frame = _frame(rows)
    for i, label in enumerate(order):
        own = frame[frame[x] == label]
        fine, lost = own[~own["diverged"]], own[own["diverged"]]
        colour = _colour(label, i, colours)
        spread = [i + 0.28 * (k / max(len(own) - 1, 1) - 0.5) for k in range(len(own))]
        ax.plot(spread[: len(fine)], fine[y], "o", color=colour, ms=5, alpha=0.75)
        ax.plot(spread[len(fine) :], lost[y], "X", color=COLOURS[6], ms=8)
        ax.hlines(own[y].mean(), i - 0.3, i + 0.3, color=colour, lw=2.5)
    if chance is not None:
        ax.axhline(
            chance, color="0.5", ls=":", label="chance (a cross: diverged, scored as chance)"
        )
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    ax.set_xticks(range(len(order)), order)
    return ax


def heatmap(
    table: DataFrame,
    *,
    label: str,
    ax: Axes,
    marked: Sequence[Any] = (),
    best: bool = True,
    chance: float | None = None,
    fmt: str = ".2f",
    cmap: str = "viridis_r",
    **limits: Any,
) -> Axes:
    """Draw a table as a map; ``marked`` columns are framed, the lowest cell gets a star.

    Cells that are no better than ``chance`` say so instead of giving a number.
    """
    words = table.map(lambda v: "chance" if chance and v >= chance - 1e-3 else format(v, fmt))
    sns.heatmap(
        table,
        annot=words,
        fmt="",
        cmap=cmap,
        cbar_kws={"label": label},
        linewidths=0.5,
        ax=ax,
        **limits,
    )
    for column in marked:
        at = list(table.columns).index(column)
        ax.add_patch(plt.Rectangle((at, 0), 1, len(table), fill=False, ec=COLOURS[6], lw=2.5))
    if best:
        row, column = divmod(int(table.to_numpy().argmin()), table.shape[1])
        ax.plot(column + 0.5, row + 0.14, "*", color=COLOURS[6], ms=12, mec="white")
    ax.tick_params(axis="y", rotation=0)
    return ax


def _frame(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    import pandas

    return pandas.DataFrame(list(rows))


def _colour(label: str, position: int, colours: Mapping[str, str] | None) -> str:
    if colours and label in colours:
        return colours[label]
    unclipped = label.endswith(("none", "unclipped"))
    return COLOURS[0] if unclipped else COLOURS[1 + position % (len(COLOURS) - 1)]
