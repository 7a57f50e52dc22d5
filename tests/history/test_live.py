"""The live figure: when it is drawn, and that it never ends a training."""

import itertools
import math
import sys
import time

import pytest
import torch
from needs import need

from cliplab.history import History, live
from cliplab.thresholds import Step

ROW = Step(2.0, 1.0, 1.0, 0.5, 1.0, 0.0)


class Notebook:
    """A notebook's place for a figure and its cells; drawing is the business of another test."""

    def __init__(self):
        self.shown, self.at_cell_end, self.now, self.costs = [], [], 100.0, []

    def find(self, at_cell_end):
        self.at_cell_end.append(at_cell_end)
        return self.shown.append, lambda: self.at_cell_end.remove(at_cell_end)

    def end_cell(self):
        for callback in list(self.at_cell_end):
            callback("the cell's result")

    def draw(self, figure):
        self.now += self.costs.pop(0) if self.costs else 0.0
        figure._show(len(figure._history))


@pytest.fixture
def notebook(monkeypatch):
    notebook = Notebook()
    monkeypatch.setattr(live, "_find_notebook", notebook.find)
    monkeypatch.setattr(live.Live, "_draw", lambda figure: notebook.draw(figure))
    monkeypatch.setattr(time, "monotonic", lambda: notebook.now)
    return notebook


def train(history, notebook, steps):
    """Steps of a second each."""
    for _ in range(steps):
        history.append(ROW, 0.1)
        notebook.now += 1


def test_a_live_figure_is_drawn_at_intervals_and_once_more_at_the_end(notebook):
    history = History(scalar=True)
    with history.watch(every=10) as figure:
        train(history, notebook, 25)
        assert len(notebook.shown) == 3
        assert figure.is_open
    assert not figure.is_open
    train(history, notebook, 1)
    figure.close()
    assert notebook.shown == [1, 11, 21, 25]
    assert notebook.at_cell_end == []


def test_the_last_steps_are_drawn_when_their_cell_ends(notebook):
    history = History(scalar=True)
    figure = history.watch(every=1000)
    train(history, notebook, 25)
    notebook.end_cell()
    notebook.end_cell()  # one that trains nothing
    assert notebook.shown == [1, 25]
    assert repr(figure) == "Live(25 steps drawn, open until close())"
    train(history, notebook, 5)
    notebook.end_cell()
    figure.close()
    notebook.end_cell()
    assert notebook.shown == [1, 25, 30]
    assert repr(figure) == "Live(30 steps drawn, closed)"


def test_drawing_takes_at_most_a_tenth_of_the_time(notebook):
    notebook.costs = [5.0] * 100
    history = History(scalar=True)
    history.watch(every=0)
    train(history, notebook, 1000)
    drawing = 5.0 * len(notebook.shown)
    assert drawing < 0.11 * (notebook.now - 100)
    assert len(notebook.shown) > 10


def test_what_a_drawing_takes_does_not_move_the_next_one(notebook):
    notebook.costs = [0.0, 0.5, 1.0, 0.2, 0.9, 0.7, 0.3, 1.0, 1.0]
    at, draw = [], notebook.draw
    notebook.draw = lambda figure: (at.append(notebook.now), draw(figure))
    history = History(scalar=True)
    history.watch(every=10)
    while len(at) < 9:
        history.append(ROW, 0.1)
        notebook.now += 2.0**-6
    gaps = [after - before for before, after in itertools.pairwise(at)]
    assert gaps == pytest.approx([10.0] * 8, abs=2.0**-5)


@pytest.mark.parametrize("slow", [0, 3])
def test_one_slow_drawing_delays_nothing(notebook, slow):
    notebook.costs = [0.0] * slow + [30.0]
    history = History(scalar=True)
    history.watch(every=10)
    train(history, notebook, 100)
    assert 10 <= len(notebook.shown) <= 11


def test_a_figure_that_fails_never_ends_a_training(notebook, monkeypatch):
    monkeypatch.setattr(live.Live, "_draw", lambda figure: 1 / 0)
    history = History(scalar=True)
    figure = history.watch(0)
    with pytest.warns(UserWarning, match=r"watch\(\) stopped: ZeroDivisionError"):
        train(history, notebook, 1)
    train(history, notebook, 1)
    notebook.end_cell()
    assert not figure.is_open
    assert len(history) == 2
    assert notebook.at_cell_end == []


@pytest.mark.usefixtures("notebook")
def test_a_second_watch_takes_over(notebook):
    history = History(scalar=True)
    first = history.watch()
    second = history.watch()
    assert (first.is_open, second.is_open) == (False, True)
    assert len(notebook.at_cell_end) == 1


def test_without_a_notebook_nothing_is_drawn_and_that_is_said():
    history = History(scalar=True)
    with pytest.warns(UserWarning, match="in a notebook only: here nothing is drawn") as said:
        figure = history.watch()
    assert said[0].filename == __file__
    with figure:
        history.append(ROW, 0.1)
        assert not figure.is_open
    assert len(history) == 1
    assert repr(figure) == "Live(0 steps drawn, closed)"


@pytest.mark.parametrize("every", [-1, math.nan, "1", True])
def test_a_bad_interval_is_refused(every):
    with pytest.raises(ValueError, match="every must be a number >= 0"):
        History().watch(every)


def test_what_is_missing_for_figures_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "seaborn", None)
    for name in [name for name in sys.modules if name.startswith("cliplab.plots")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"pip install 'cliplab\[lab\]'"):
        __import__("cliplab.plots")


def test_a_drawing_leaves_the_style_of_other_figures_alone(monkeypatch):
    mpl = need("matplotlib", "lab")
    pictures = []
    monkeypatch.setattr(live, "_find_notebook", lambda end: (pictures.append, lambda: None))
    before = dict(mpl.rcParams)
    history = History(["a", "b"])
    with history.watch(0):
        history.append(torch.ones(6, 2), 0.1)
    assert pictures[0].startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before


def test_the_object_is_not_shown_beside_its_figure(notebook):
    formatters = need("IPython.core.formatters", "lab")
    figure = History(scalar=True).watch()
    assert formatters.DisplayFormatter().format(figure) == ({}, {})
