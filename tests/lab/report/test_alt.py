"""What the texts say that stand for figures."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from cliplab.lab.report.alt import MOST, Figures

DRAWN = """
fig, ax = plt.subplots()
ax.plot(norms)
ax.set(title="Norms, one seed", xlabel="update", ylabel=r"$\\\\lVert g \\\\rVert$ (L2)")
"""


def alt(code: str, *, before: str = "## The cliff", after: str = "Prose.", plain: str = "") -> str:
    cells = [new_markdown_cell(before), new_code_cell(code), new_markdown_cell(after)]
    return Figures(cells).alt(1, plain)


def test_titles_and_axes_are_read_off_the_code():
    assert alt(DRAWN) == "Figure 1, The cliff: Norms, one seed; g (L2) against update"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("plt.title('T'); plt.ylabel('y')", "T; y"),
        ("ax.set_title(f'T = {t}'); ax.set_xlabel('x')", "T = …; along x"),
        ("grid.set_axis_labels('x', 'y')", "y against x"),
        ("sns.heatmap(d, cbar_kws={'label': 'share clipped'})", "colours: share clipped"),
        ("fig.colorbar(m, label='rate'); ax.set(title=name)", "colours: rate"),
        ("def draw(ax):\n    ax.set(ylabel='loss')\ndraw(ax)", "loss"),
    ],
)
def test_the_ways_of_saying_it(code, said):
    assert alt(code) == f"Figure 1, The cliff: {said}"


@pytest.mark.parametrize(
    "code", ["%matplotlib inline\nax.set(title='T')", "plot(x) <- 3", "show()"]
)
def test_without_labels_it_is_the_section_and_the_panels(code):
    plain = "<Figure size 640x480 with 3 Axes>"
    assert alt(code, plain=plain) == "Figure 1, The cliff: 3 panels"
    assert alt(code) == "Figure 1, The cliff"
    assert alt(code, before="No heading.") == "Figure 1"


def test_how_to_read_it_is_added_and_the_whole_is_cut():
    read = "**How to read it.** A dot is a *run*. More."
    assert alt("show()", after=read) == "Figure 1, The cliff. A dot is a run."
    assert len(alt("show()", after=f"**How to read it.** {'long ' * 200}.")) == MOST


def test_functions_that_all_call_each_other_are_read_once_each():
    names = [f"f{i}" for i in range(24)]
    bodies = "".join(f"def {n}():\n    {'(); '.join(names)}()\n" for n in names)
    assert alt(f"{bodies}f0()\nplt.title('T')") == "Figure 1, The cliff: T"


def test_functions_that_call_each_other_end():
    code = "def a():\n    b()\ndef b():\n    a()\n    plt.title('T')\na()"
    assert alt(code) == "Figure 1, The cliff: T"
