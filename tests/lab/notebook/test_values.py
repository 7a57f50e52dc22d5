"""Values of parameters: read from text, checked, as JSON has them."""

import math
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.notebook.values import Parameter, Text, coerce, same, split

FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


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
        ("list[str]", "['a, b','c']", ["a, b", "c"]),
        ("str", "it's, [x", "it's, [x"),
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
        ("list[int]", Text("'1'")),
        ("list[str]", Text("['a, b]")),
        ("float", 10**400),
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


@given(st.lists(st.text(), min_size=1, unique=True))
def test_every_list_of_texts_survives_the_command_line(texts):
    for parameter in (Parameter("x", "list[str]"), Parameter("x", default=[])):
        assert coerce(parameter, Text(repr(texts))) == texts
    assert split(",".join(map(repr, texts))) == texts


@given(JSON)
def test_every_json_value_is_taken_where_no_type_is_declared(value):
    assert same(coerce(Parameter("x"), value), value)
    if isinstance(value, list | dict):
        assert same(coerce(Parameter("x"), Text(repr(value))), value)


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("True", None, True),
        ("None", 1, None),
        ("1_000", None, 1000),
        ("-1", None, -1),
        ("1e-3", "text", 0.001),  # as papermill reads it
        ("true", None, "true"),
        ("", None, ""),
        ("[1, 'a, b', None]", None, [1, "a, b", None]),
        ('{"a": [true, null]}', None, {"a": [True, None]}),
        ("[draft] of a title", "text", "[draft] of a title"),
        ("(1, (2,))", [1], [1, [2]]),
        ("1, 2", [1], [1, 2]),
        ("it's, quoted", None, "it's, quoted"),
    ],
)
def test_text_of_no_declared_type_is_read_as_papermill_does_or_as_a_literal(text, default, value):
    assert same(coerce(Parameter("p", default=default), Text(text)), value)


@pytest.mark.parametrize(
    ("value", "default"),
    [
        (Text("nan"), None),
        (Text("[a, b]"), None),
        (Text("{'a': 1"), {}),
        (Text("a, b"), []),
        (Text("["), None),
        (Text("{1: 2}"), None),
        (math.inf, None),
        ({1: 2}, None),
        ([{1, 2}], None),
        (b"x", None),
    ],
)
def test_what_json_does_not_have_is_refused_by_name(value, default):
    with pytest.raises(ValueError, match="parameter layers: "):
        coerce(Parameter("layers", default=default), value)


def test_a_date_is_text_and_endless_nesting_is_refused():
    assert coerce(Parameter("day"), [date(2020, 1, 2)]) == ["2020-01-02"]
    endless: list = []
    endless.append(endless)
    with pytest.raises(ValueError, match="parameter x: nested too deeply"):
        coerce(Parameter("x"), endless)
    with pytest.raises(ValueError, match="parameter x: "):
        coerce(Parameter("x"), Text("[" * 10_000))


def test_an_optional_type_takes_none_and_is_as_strict_otherwise():
    lr = Parameter("lr", "float | None", bound="> 0")
    assert coerce(lr, None) is coerce(lr, Text("None")) is None
    assert coerce(lr, Text("1")) == 1.0
    for value in ("None", "1", -1, Text("none")):
        with pytest.raises(ValueError, match="parameter lr: "):
            coerce(lr, value)


def test_only_an_axis_names_something_and_nothing_twice():
    assert coerce(Parameter("x", "list[int]", axis=False), [2, 2]) == [2, 2]
    assert coerce(Parameter("x", "list[int]", axis=False), Text("[]")) == []
    with pytest.raises(ValueError, match="names a value twice"):
        coerce(Parameter("x", "list[int]"), [2, 2])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("1,1e-3", ["1", "1e-3"]),
        ("'a,b',c", ["a,b", "c"]),
        ('"it\'s", "x\\n"', ["it's", "x\n"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ("['a]', b],{'x': (1, 2)}", ["['a]', b]", "{'x': (1, 2)}"]),
        ("''", [""]),
    ],
)
def test_commas_in_quotes_and_brackets_part_nothing(text, parts):
    assert split(text) == parts


@pytest.mark.parametrize(
    "text", ["", "1,,2", "a,", "it's,b", "it's,b's", "'a' 'b'", "'a'b", "[1,2"]
)
def test_ill_quotes_and_brackets_are_refused(text):
    with pytest.raises(ValueError, match=r"quote|separated by commas"):
        split(text)
