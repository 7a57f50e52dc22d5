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
from cliplab.clipper import Clipper
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
    assert max(share_ax.get_lines()[0].get_ydata()) == 0.5  # of the last 40 / 20


def labels_of(axis, figure):
    """What stands at the ticks that can be seen."""
    figure.canvas.draw()
    low, high = axis.get_view_interval()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [
        t.label1.get_text() for t in ticks if low <= t.get_loc() <= high and t.label1.get_text()
    ]


@pytest.mark.parametrize("span", [1.0, 1.2, 3.0, 9.0, 12.0, 99.0, 900.0, 1e6])
def test_labels_of_an_axis_do_not_crowd(span):
    history = record([0.5 * span ** (i / 40) for i in range(41)], limit=0.1)
    figure = plots.overview(history)
    for ax in [*figure.axes[:2], plots.history(history, ax=plt.figure().gca())]:
        assert 2 <= len(labels_of(ax.yaxis, ax.figure)) <= 12


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


@pytest.mark.parametrize("draw", [plots.history, plots.overview])
def test_a_clipper_stands_for_its_history(draw):
    weight = torch.nn.Parameter(torch.zeros(2))
    clipper = Clipper([weight], 1.0)
    weight.grad = torch.tensor([3.0, 4.0])
    clipper.clip()
    assert draw(clipper) is not None
    for wrong in (weight, 3, None, "history.pt", [1.0]):
        with pytest.raises(ValueError, match="expected a History or a Clipper, got"):
            draw(wrong)


def test_a_history_with_parts_is_drawn_by_overview():
    with pytest.raises(ValueError, match=r"has 2 parts: draw it with plots\.overview"):
        plots.history(record([[1.0, 2.0]], ["a", "b"]))


def test_a_column_that_rows_do_not_have_is_named():
    rows = [{"arm": "a", "loss": 1.0, "diverged": False}]
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="no column 'los': did you mean 'loss'"):
        plots.runs(rows, x="arm", y="los", ax=ax, order=["a"])
    with pytest.raises(ValueError, match="no column 'zebra' among arm, loss, diverged"):
        plots.shares(rows, x="arm", hue="zebra", value="diverged", ax=ax, order=["a"])


def test_figures_need_no_default_device():
    histories = record([0.5, 2.0, math.nan]), record([[0.5, 2.0]], ["a", "b"])
    torch.set_default_device("meta")
    try:
        for history in histories:
            plots.overview(history).canvas.draw()
        plots.history(histories[0]).figure.canvas.draw()
    finally:
        torch.set_default_device(None)


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
    unclosed = """
open_figure = clipper.history.watch(1000)
for step in range(5):
    weight.grad = torch.ones(2)
    clipper.clip()
assert repr(open_figure) == "Live(6 steps drawn, open until close())"
"""
    after = 'assert repr(open_figure) == "Live(10 steps drawn, open until close())"'
    path = make_notebook(tmp_path / "live.ipynb", cell, unclosed, after)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    drawn = []
    for cell in notebook.cells[1:]:
        assert [o for o in cell.outputs if o.output_type == "error"] == []
        drawn.append([o for o in cell.outputs if "image/png" in json.dumps(o.get("data", {}))])
    assert [len(pictures) for pictures in drawn] == [0, 1, 1, 0]  # always in the same place
    assert all(len(pictures[0].data["image/png"]) > 1000 for pictures in drawn if pictures)
