"""Spaces: places and values are each other's inverse, draws are the same for every way and size."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliplab.lab.study import Choice, Linear, Log, Space

ends = st.tuples(st.floats(1e-6, 1e3), st.floats(1.01, 1e6)).map(lambda e: (e[0], e[0] * e[1]))
opened = st.booleans()
coordinates = st.one_of(
    st.builds(lambda e, a, b: Linear(-e[0], e[1], a, b), ends, opened, opened),
    st.builds(lambda e, a, b: Log(*e, a, b), ends, opened, opened),
    st.lists(st.integers(-9, 9) | st.text(max_size=3), min_size=2, max_size=5, unique=True).map(
        lambda values: Choice(*values)
    ),
)
spaces = st.dictionaries(st.sampled_from(["lr", "threshold", "decay"]), coordinates, min_size=1)


@given(coordinates, st.floats(0, 1))
def test_a_value_lies_within_its_ends_and_gives_its_place_back(coordinate, u):
    value = coordinate.at(u)
    if isinstance(coordinate, Choice):
        assert value in coordinate.values
        assert coordinate.at(coordinate.place(value)) == value
    else:
        slack = 1e-9 * max(abs(coordinate.low), abs(coordinate.high))
        assert coordinate.low - slack <= value <= coordinate.high + slack
        assert coordinate.place(value) == pytest.approx(u, abs=1e-6)


@given(spaces.map(lambda found: Space(**found)))
def test_a_space_comes_back_from_what_a_record_holds_of_it(space):
    again = Space.of(space.about())
    assert again.about() == space.about()
    assert again.draws(5, 3) == space.draws(5, 3)


def test_draws_fill_the_space_and_fewer_are_the_first_of_more():
    space = Space(lr=Log(0.01, 1.0), threshold=Linear(0.0, 1.0), kind=Choice("a", "b"))
    draws = space.draws(48, seed=9)
    assert space.draws(12, seed=9) == draws[:12]
    assert space.draws(12, seed=10) != draws[:12]
    for name in ("lr", "threshold"):  # of 32 points of a Sobol sequence, one in each of 32 cells
        places = [space.coordinates[name].place(draw[name]) for draw in draws[:32]]
        assert sorted(math.floor(32 * place) for place in places) == list(range(32))
    assert [draw["kind"] for draw in draws[:32]].count("a") == 16


def test_a_coordinate_more_moves_no_other():
    """A way's own coordinate is a further dimension: what the others draw stays."""
    alone = Space(lr=Log(0.01, 1.0)).draws(16, seed=4)
    both = Space(lr=Log(0.01, 1.0), threshold=Log(0.1, 1.0)).draws(16, seed=4)
    places = np.array([[math.log10(draw["lr"]) for draw in draws] for draws in (alone, both)])
    assert sorted(np.floor(8 * (places[0] + 2))) == sorted(np.floor(8 * (places[1] + 2)))


def test_decades_are_those_of_what_is_drawn_in_its_logarithm():
    assert Log(0.01, 10.0).decades == pytest.approx(3)
    assert Linear(0.0, 10.0).decades is Choice(1, 2).decades is None


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Linear(1.0, 1.0), r"Linear\(low=1.0, high=1.0.*: expected finite ends, low below"),
        (lambda: Linear(0.0, math.inf), "expected finite ends"),
        (lambda: Log(math.nan, 1.0), "expected finite ends"),
        (lambda: Log(0.0, 1.0), r"Log\(low=0.0.*: expected low above 0"),
        (lambda: Choice(1), r"Choice\(1,\): expected at least two values, all different"),
        (lambda: Choice(1, 1), "all different"),
        (lambda: Space(), "at least one coordinate"),
        (lambda: Space(lr=0.1), r"lr = 0.1, expected Log, Linear or Choice"),
        (lambda: Space.of({"lr": {"kind": "log"}}), "space = .*'open'"),
        (lambda: Space.of({"lr": {"kind": "choice"}}), "space = .*'values'"),
    ],
)
def test_what_is_no_space_is_refused(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
