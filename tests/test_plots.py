"""Figures say what the history says."""

import json
import math

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import pytest
import torch
from needs import need

from cliplab import plots
from cliplab.diagnosis import find_threshold
from cliplab.history import History


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def record(rows, labels=(), lr=0.1, limit=1.0):
    history = History(labels, scalar=not labels)
    for sizes in rows:
        sizes = torch.tensor(sizes).reshape(-1)
        over = sizes > limit
        factor = torch.where(over & sizes.isfinite(), limit / sizes, 1.0)
        columns = [sizes, sizes * factor, torch.full_like(sizes, limit), factor, over, over * 0]
        history.append(torch.stack(columns), lr)
    return history


def line(ax, label):
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return found


def test_overview_of_a_whole_gradient():
    history = record([0.5, 2.0, math.nan, 4.0] * 10)
    history.first_step = 100
    norm_ax, lr_ax, share_ax = plots.overview(history).axes
    norms = line(norm_ax, "raw norm")
    assert norms.get_xdata()[0] == 100
    assert list(norms.get_ydata()[[0, 1, 3]]) == [0.5, 2.0, 4.0]
    assert math.isnan(norms.get_ydata()[2])
    assert len(line(norm_ax, "not finite").get_xdata()) == 10
    assert list(line(lr_ax, "lr × factor").get_ydata()[:2]) == pytest.approx([0.1, 0.05])
    assert norm_ax.get_yscale() == lr_ax.get_yscale() == "log"
    assert max(share_ax.get_lines()[0].get_ydata()) == 0.5  # of the last 40 / 20


def test_overview_by_part_has_a_bar_for_every_part_most_clipped_first():
    history = record([[0.5, 2.0, 1.5], [0.5, 2.0, 0.5]], ["a", "b", "c"], lr=None)
    _, factor_ax, share_ax = plots.overview(history).axes
    assert [text.get_text() for text in share_ax.get_yticklabels()] == ["b", "c", "a"]
    assert [bar.get_width() for bar in share_ax.patches] == [1.0, 0.5, 0.0]
    assert factor_ax.get_ylabel() == "factor"
    many = record([[2.0] * 30] * 3, [f"layer {i}" for i in range(30)])
    assert len(plots.overview(many).axes[2].patches) == 20


@pytest.mark.parametrize("rows", [[], [1.0], [math.nan] * 3, [0.0] * 3])
def test_overview_of_next_to_nothing(rows):
    figure = plots.overview(record(rows, limit=math.inf))
    figure.canvas.draw()
    assert len(figure.axes) == 3


def test_history_marks_clipped_steps():
    ax = plots.history(record([0.5, 2.0, 4.0]))
    assert list(line(ax, "clipped").get_ydata()) == [2.0, 4.0]


def test_a_probe_shows_its_threshold_and_what_it_left_out():
    ax = find_threshold(lambda step: 1.0 + step % 2, 100).plot()
    assert set(line(ax, "threshold 2").get_ydata()) == {2.0}
    assert len(line(ax, "used").get_xdata()) == 90
    diverged = find_threshold(lambda step: math.nan if step > 5 else 1.0, 50)
    _, ax = plt.subplots()
    assert diverged.plot(ax) is ax
    labels = [found.get_label() for found in ax.get_lines()]
    assert labels == ["raw norm", "used", "not finite or 0"]


@pytest.mark.slow
def test_the_live_figure_in_a_notebook(tmp_path, make_notebook):
    nbclient = need("nbclient", "lab")
    import nbformat

    cell = """
import torch
from cliplab.clipper import Clipper
weight = torch.nn.Parameter(torch.zeros(2))
clipper = Clipper([weight], 1.0)
with clipper.history.watch(0) as live:
    assert live.is_open
    for step in range(5):
        weight.grad = torch.ones(2)
        clipper.clip()
"""
    path = make_notebook(tmp_path / "live.ipynb", cell)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = notebook.cells[-1].outputs
    pictures = [o for o in outputs if "image/png" in json.dumps(o.get("data", {}))]
    assert len(pictures) == 1  # always in the same place
    assert [o for o in outputs if o.output_type == "error"] == []
    assert len(pictures[0].data["image/png"]) > 1000
