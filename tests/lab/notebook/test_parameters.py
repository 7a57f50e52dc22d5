"""What a parameters cell declares, and which values of a run the notebook has not."""

import json
from pathlib import Path

import pytest

from cliplab.lab.notebook.declarations import only_literals, parse_parameters
from cliplab.lab.notebook.parameters import (
    Signature,
    check_parameters,
    overwriting,
    read_parameters,
    read_signature,
)
from cliplab.lab.notebook.values import Parameter


def test_every_part_of_a_line_is_read(tmp_path, make_notebook):
    lines = (
        'lr: float = 1  # learning rate (per update) [> 0]\nsizes: list[int] = [1, 5]\nm: str = "a"'
    )
    parameters = read_parameters(make_notebook(tmp_path / "a.ipynb", parameters=lines))
    assert list(parameters) == ["lr", "sizes", "m", "first_seed", "n_seeds"]
    lr = Parameter("lr", "float", 1.0, "learning rate (per update)", "> 0")
    assert parameters["lr"] == lr
    assert type(parameters["lr"].default) is float
    assert parameters["sizes"].default == [1, 5]
    assert parameters["sizes"].help == ""
    assert parameters["n_seeds"].bound == ">= 1"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("lr: float = 'x'", "'x' is not of type float"),
        ("lr: float = 0.0  # rate [> 0]", "violates its bound"),
        ("lr: float = 1.0  # rate [=> 0]", "is not like"),
        ("sizes: list[int] = []", "non-empty"),
        ("lr: float = ", "invalid syntax"),
    ],
)
def test_bad_lines_are_named(line, complaint, tmp_path, make_notebook):
    path = make_notebook(tmp_path / "a.ipynb", parameters=line)
    with pytest.raises(ValueError, match=r"a\.ipynb: parameters cell") as caught:
        read_parameters(path)
    assert complaint in str(caught.value)


ANYBODYS = """
import os
from math import pi

lr = 0.1  # learning rate [> 0]
model = None
hidden: list[int] = [64, 64]
momentum: float = None  # if any
decay: "Optional[float]" = 0.5
layers = {
    "a": (1, 2),
    "b": [None, True],
}  # of the network
n = 2 * 3
home = os.environ.get("HOME", "x")
first, *rest = 1, 2
a = b = "text"
if n > 3:
    late = 1
epochs: int
total = 1
total += 1
def helper(x): y = x
lr = 0.2
"""


def test_any_parameters_cell_is_read():
    found = parse_parameters(ANYBODYS)
    plain = {name: p.default for name, p in found.items() if not p.computed}
    assert plain == {
        "lr": 0.2,
        "model": None,
        "hidden": [64, 64],
        "momentum": None,
        "decay": 0.5,
        "layers": {"a": [1, 2], "b": [None, True]},
        "a": "text",
        "b": "text",
    }
    computed = {name: p.default for name, p in found.items() if p.computed}
    assert computed == {
        "n": "2 * 3",
        "home": "os.environ.get('HOME', 'x')",
        **dict.fromkeys(["first", "rest", "late", "epochs", "total"], "..."),
    }
    types = {name: p.type for name, p in found.items() if p.type}
    optional = {"momentum": "float | None", "decay": "float | None"}
    assert types == {"hidden": "list[int]", "epochs": "int", **optional}
    assert found["layers"].help == "of the network"
    assert (found["momentum"].help, found["lr"].bound) == ("if any", None)


def test_a_bound_belongs_to_a_type_and_axes_to_experiments():
    cell = "x: int = 1  # count [> 0]\nsizes: list[int] = [1]\n"
    assert parse_parameters(cell)["x"].bound == "> 0"
    assert not parse_parameters(cell)["sizes"].axis
    assert parse_parameters(f"{cell}first_seed: int = 0\nn_seeds: int = 1")["sizes"].axis


@pytest.mark.parametrize(
    ("cell", "only"),
    [
        ("", True),
        ("# prose\n'prose'\nlr = -1\nx: dict = {'a': [None]}  # help", True),
        ("shape = (1, 2)", False),  # a run's record has a list
        ("a = b = 1", True),
        ("n = 2 * 3", False),
        ("x: int", False),
        ("import os\nlr = 1", False),
        ("x = {1: 2}", False),
        ("x = 1\nx = 2", False),
        ("%matplotlib inline\nlr = 1", False),
        ("lr <- 0.1 +", False),
    ],
)
def test_a_cell_of_nothing_but_json_values_is_told_from_code(cell, only):
    assert only_literals(cell) is only


@pytest.fixture
def write(tmp_path):
    """Write a notebook of code cells, each with its tags; its signature."""

    def make(*cells: tuple[str, list[str]] | str, **metadata: object) -> Signature:
        path = tmp_path / "any.ipynb"
        parts = [(cell, []) if isinstance(cell, str) else cell for cell in cells]
        code = {"cell_type": "code", "outputs": [], "execution_count": None}
        found = [{**code, "source": text, "metadata": {"tags": tags}} for text, tags in parts]
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": found}
        path.write_text(json.dumps(notebook))
        return read_signature(path)

    return make


def test_what_the_notebook_has_is_not_put_in(write):
    found = write(("lr: float = 1\nn = 3\nshape = (1, 2)\nx = f()", ["parameters"]), "y = lr")
    values = found.defaults
    assert values == {"lr": 1.0, "n": 3, "shape": [1, 2]}
    assert found.given(values) == {"lr": 1.0}  # declared float, and written as an int
    changed = values | found.typed({"lr": 1.0, "n": 3.0, "x": {"a": None}, "shape": [1, 2]})
    assert found.given(changed) == {"lr": 1.0, "n": 3.0, "x": {"a": None}}


def test_names_that_a_parameters_cell_does_not_declare_are_refused(write):
    found = write(("lr = 1", ["parameters"]), ("lr2 = 1", ["parameters"]))
    with pytest.raises(ValueError, match="unknown parameter 'lr2'; declared: lr"):
        found.typed({"lr2": 1})
    with pytest.raises(ValueError, match="unknown parameter 'lr'; declared: none"):
        write(("", ["parameters"])).typed({"lr": 1})


def test_without_a_parameters_cell_a_name_is_what_the_notebook_does_not_set_itself(write):
    found = write("import os", "print(lr)\nlr = 2", "n = 3\nif n: m = 1", "def f(): k = n")
    assert found.parameters == {}
    for name in ("lr", "m", "k"):
        assert found.given(found.typed({name: 5})) == {name: 5}
    for name, line in [("n", "n = 3"), ("os", "import os")]:
        with pytest.raises(ValueError, match=f"parameter {name}: .*'{line}': tag that cell `param"):
            found.given(found.typed({name: 5}))
    for name in ("not a name", "class", "1x"):
        with pytest.raises(ValueError, match="expected a name of the notebook's language"):
            found.typed({name: 5})
    with pytest.raises(ValueError, match="parameter 'typo': no cell of the notebook uses it"):
        found.typed({"typo": 5})


def test_a_value_that_a_later_cell_overwrites_is_refused(write):
    found = write(("lr = 1\nn = 2", ["parameters"]), "n = n + 1", "lr = 0.5", "n = 7")
    assert found.given({"lr": 1, "n": 5}) == {"n": 5}
    with pytest.raises(ValueError, match=r"parameter lr: .*'lr = 0.5': its value would be lost"):
        found.given({"lr": 2, "n": 2})


@pytest.mark.parametrize(
    "cell",
    [
        "lr = lr * 2",
        "lr += 1",
        "lr = globals().get('lr', 0.1)",
        "%time y = lr\nlr = 2",
        "for lr in x: pass",
        "try:\n    lr\nexcept NameError:\n    lr = 1",
        "lr: float\nprint(lr)",
        "x.lr = 1",
        "x = (",
    ],
)
def test_only_what_certainly_overwrites_a_value_counts(cell):
    assert "lr" not in overwriting((cell,))


def test_values_that_papermill_once_put_in_are_the_defaults(write):
    cells = [("lr = 1\nn = 2", ["parameters"]), ("lr = 5", ["injected-parameters"]), "y = lr"]
    found = write(*cells)
    assert found.defaults == {"lr": 5, "n": 2}
    assert found.given(found.defaults) == {}
    assert found.given({"lr": 5, "n": 3}) == {"lr": 5, "n": 3}  # papermill replaces that cell
    assert found.given({"lr": 1, "n": 2}) == {"lr": 1}


def test_another_language_is_not_read_as_python(write):
    cell = "lr <- 0.1  # step\nname <- 'x'\nif (lr == 1) stop()"
    found = write(
        (cell, ["parameters"]), "x <<- function(learning.rate", language_info={"name": "R"}
    )
    assert {p.name: (p.default, p.help) for p in found.parameters.values()} == {
        "lr": ("0.1", "step"),
        "name": ("'x'", ""),
    }
    assert found.defaults == {}
    assert found.given(found.typed({"learning.rate": 1, "lr": 0.1})) == {
        "learning.rate": 1,
        "lr": 0.1,
    }
    with pytest.raises(ValueError, match="expected a name"):
        found.typed({"a b": 1})
    with pytest.raises(ValueError, match="no cell of the notebook"):
        found.typed({"rate2": 1})


def test_a_parameters_cell_with_magics_is_read(write):
    assert write(("%matplotlib inline\nlr = 1\nx = !ls", ["parameters"])).defaults == {"lr": 1}
    with pytest.raises(ValueError, match=r"any\.ipynb: parameters cell: "):
        write(("lr = (", ["parameters"]))


def run_cells(*cells: str) -> dict:
    """A notebook's namespace after these cells, as IPython keeps it."""
    namespace: dict = {"In": ["", *cells]}
    for cell in cells:
        exec(cell, namespace)
    return namespace


def test_check_parameters_knows_the_bounds_under_plain_papermill():
    with pytest.raises(ValueError, match=r"parameter n: 0 violates its bound \[> 0\]"):
        check_parameters(run_cells("n: int = 1  # how many [> 0]", "# Parameters\nn = 0\n"))


def test_check_parameters_under_plain_papermill():
    declared = "lr: float = 0.1\nsizes: list[int] = [1]\nother: dict = {}"
    check_parameters(run_cells(declared))
    check_parameters(run_cells(declared, "# Parameters\nlr = 1\nsizes = [1, 5]\n"))
    for injected, complaint in [
        ("lr = '1e-3'", "parameter lr: '1e-3' is not of type float"),
        ("lr = float('nan')", "not a finite number"),
        ("lr = float('inf')", "not a finite number"),
        ("sizes = [2, 2]", "names a value twice"),
        ("sizes = '(1, 5)'", "parameter sizes"),
        ("sizes = []", "non-empty"),
        ("typo = 3", "unknown parameter typo; declared: lr, sizes"),
    ]:
        with pytest.raises(ValueError, match="parameter") as caught:
            check_parameters(run_cells(declared, f"# Parameters\n{injected}\n"))
        assert complaint in str(caught.value)


def test_parameters_do_not_depend_on_the_file(tmp_path: Path):
    assert parse_parameters("") == {}
    with pytest.raises(ValueError, match=r"cannot read notebook .*none.ipynb"):
        read_parameters(tmp_path / "none.ipynb")
