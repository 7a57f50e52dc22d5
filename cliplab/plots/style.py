"""How all figures look."""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import matplotlib.pyplot as plt
    import seaborn as sns
except ImportError as error:
    raise ImportError(f"figures need pip install 'cliplab[lab]' ({error})") from error

from matplotlib.ticker import LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours: distinct for colour-blind readers. Black is always "no clipping".
COLOURS = ["#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"]

WIDE = (12.0, 3.7)  # three panels (inches)


def theme() -> None:
    """Set the style of all figures."""
    style = {"axes.titleweight": "bold", "axes.titlesize": "medium", "figure.dpi": 110}
    style |= {"figure.constrained_layout.use": True}
    sns.set_theme("notebook", style="whitegrid", palette=COLOURS, rc=style)


def legend_below(ax: Axes, ncols: int = 3) -> None:
    """Put the legend, if there is one, under the axes."""
    if ax.get_legend_handles_labels()[0]:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
        ax.legend(frameon=False, ncols=ncols, fontsize=9, **below)


def log_scale(ax: Axes) -> None:
    """A log scale where the numbers drawn span a decade; a few labels on it, however many."""
    low, high = ax.dataLim.minposy, ax.dataLim.ymax
    if high >= 10 * low:
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
        if high < 1000 * low:  # few powers of ten
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")


__all__ = ["COLOURS", "WIDE", "legend_below", "log_scale", "plt", "sns", "theme"]
