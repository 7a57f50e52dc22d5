"""Arms against each other, and maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from cliplab.plots.style import COLOURS, plt, sns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


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
    """Draw the share of runs with ``value`` true, one bar per ``x`` and ``hue``, labelled k/n.

    Args:
        rows: recorded rows, one a run.
        x: column of the groups of bars.
        hue: column of the bars within a group.
        value: column of bools.
        ax: where to draw.
        order: bars of a group from left to right.
        colours: of the bars; None: by place.
    """
    frame = _frame(rows, x, hue, value)
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
    """Draw every run as a dot beside its arm's mean; diverged runs are crosses at chance.

    Args:
        rows: recorded rows, one a run.
        x: column of the arms.
        y: column that is drawn.
        ax: where to draw.
        order: arms from left to right.
        colours: of the arms; None: by place.
        chance: where diverged runs are drawn.
    """
    frame = _frame(rows, x, y, "diverged")
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

    Args:
        table: numbers; the index runs down, the columns across.
        label: what the colours mean.
        ax: where to draw.
        marked: columns that are framed.
        best: whether the lowest cell gets a star.
        chance: a number from which on a cell says so; None: none does.
        fmt: format of the numbers.
        cmap: name of a colour map.
        limits: ``vmin`` and ``vmax`` of the colours.
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


def _frame(rows: Iterable[Mapping[str, Any]], *columns: str) -> DataFrame:
    """The rows as a table; ``ValueError`` unless it has these columns."""
    import pandas

    frame = pandas.DataFrame(list(rows))
    for name in columns:
        if name not in frame:
            close = get_close_matches(name, map(str, frame), n=1)
            hint = (
                f": did you mean {close[0]!r}?" if close else f" among {', '.join(map(str, frame))}"
            )
            raise ValueError(f"the rows have no column {name!r}{hint}")
    return frame


def _colour(label: str, position: int, colours: Mapping[str, str] | None) -> str:
    if colours and label in colours:
        return colours[label]
    unclipped = label.endswith(("none", "unclipped"))
    return COLOURS[0] if unclipped else COLOURS[1 + position % (len(COLOURS) - 1)]
