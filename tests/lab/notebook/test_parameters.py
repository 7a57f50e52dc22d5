import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.notebook.parameters import (
    Parameter,
    Text,
    check_parameters,
    coerce,
    parse_parameters,
    read_parameters,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)


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
        ("lr = 0.1", "expected `name: type = literal"),
        ("lr: float", "expected `name: type = literal"),
        ("sizes: list[int] = [\n  1]", "on one line"),
        ("lr: dict = {}", "type dict is not one of"),
        ("lr: float = max(1, 2)", "must be a literal"),
        ("lr: float = 'x'", "'x' is not of type float"),
        ("lr: float = 1.0\nlr: float = 2.0", "declared twice"),
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


def test_notebooks_without_the_seeds_or_the_cell_are_refused(tmp_path):
    path = tmp_path / "a.ipynb"
    cell = (
        '{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "lr: float = 1.0"}'
    )
    for text, complaint in [
        ("{", "cannot read notebook"),
        ('{"cells": []}', "found 0"),
        (f'{{"cells": [{cell}]}}', "must declare first_seed: int"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=complaint):
            read_parameters(path)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("float", "1e-3", 0.001),
        ("float", "3", 3.0),
        ("int", "007", 7),
        ("bool", "true", True),
        ("bool", "False", False),
        ("str", "1e-3", "1e-3"),
        ("list[float]", "[1, 1e-3]", [1.0, 0.001]),
        ("list[int]", "4", [4]),
        ("list[str]", "['a', b]", ["a", "b"]),
    ],
)
def test_text_is_read_by_the_declared_type(kind, text, value):
    result = coerce(Parameter("p", kind), Text(text))
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int", Text("1.5")),
        ("int", 1.0),
        ("int", True),
        ("float", Text("abc")),
        ("float", Text("")),
        ("float", Text("nan")),
        ("float", math.nan),
        ("float", True),
        ("float", None),
        ("bool", 1),
        ("bool", Text("on")),
        ("str", 1),
        ("list[int]", []),
        ("list[int]", Text("[]")),
        ("list[int]", [1, 2.5]),
        ("list[int]", 1),
        ("list[float]", Text("1,,2")),
        ("list[float]", [1.0, math.nan]),
    ],
)
def test_values_of_another_type_are_refused_by_name(kind, value):
    with pytest.raises(ValueError, match="parameter width: "):
        coerce(Parameter("width", kind), value)


def test_a_number_that_yaml_read_as_text_gets_a_hint():
    with pytest.raises(ValueError, match=r"write 0.001 without quotes"):
        coerce(Parameter("lr", "float"), "1e-3")


@pytest.mark.parametrize("value", [0.0, -1.0, [1.0, 0.0]])
def test_bounds_hold_for_every_element(value):
    kind = "list[float]" if isinstance(value, list) else "float"
    with pytest.raises(ValueError, match=r"parameter lr: .* violates its bound \[> 0\]"):
        coerce(Parameter("lr", kind, bound="> 0"), value)
    assert coerce(Parameter("lr", "float", bound=">= 0"), 0.0) == 0.0


@given(FINITE)
def test_a_float_survives_the_command_line(value):
    assert coerce(Parameter("x", "float"), Text(repr(value))) == value


@given(st.lists(FINITE, min_size=1, unique=True))
def test_a_list_survives_the_command_line(values):
    assert coerce(Parameter("x", "list[float]"), Text(values)) == values


@given(st.integers(), st.sampled_from([">", ">=", "<", "<="]), st.integers(-5, 5))
def test_bounds_agree_with_python(value, sign, limit):
    parameter = Parameter("x", "int", bound=f"{sign} {limit}")
    if eval(f"{value} {sign} {limit}"):
        assert coerce(parameter, value) == value
    else:
        with pytest.raises(ValueError, match="violates"):
            coerce(parameter, value)


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
