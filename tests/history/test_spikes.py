"""The spike score against its definition, value by value."""

import math
from statistics import fmean, pstdev

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from cliplab.history import History
from cliplab.thresholds import Step


def naive(values, window, sigmas):
    """The definition as a loop; None where rounding decides."""
    before, spikes = [], 0
    for value in values:
        full = len(before) >= window
        if not math.isfinite(value):
            spikes += full
            continue
        if full:
            mean, spread = fmean(before[-window:]), pstdev(before[-window:])
            distance, limit = abs(value - mean), sigmas * spread
            if spread > 0 and math.isclose(distance, limit, rel_tol=1e-6):
                return None
            spikes += spread > 1e-10 * abs(mean) and distance >= limit
        before.append(value)
    return 100 * spikes / len(values)


def recorded(sizes, **options):
    history = History(scalar=True, **options)
    for size in sizes:
        history.append(Step(float(size), 1.0, 1.0, 1.0, 0.0, 0.0), None)
    return history


SIZES = (
    st.integers(1, 9).map(float)
    | st.sampled_from([math.nan, math.inf, 1e5, 1e12])
    | st.floats(0.5, 2, width=32)
)


@given(
    st.lists(SIZES, min_size=1, max_size=60), st.integers(1, 8), st.sampled_from([0.5, 1.0, 2.5, 7])
)
def test_it_is_the_definition(sizes, window, sigmas):
    history = recorded(sizes)
    expected = naive(history.norm_before.double().tolist(), window, sigmas)
    assume(expected is not None)
    assert history.spike_score(window, sigmas) == pytest.approx(expected)
    assert history.spike_score(window, sigmas, values=history.norm_before) == pytest.approx(
        expected
    )


@given(st.integers(0, 99), st.integers(1, 8), st.integers(-20, 20))
def test_the_unit_of_the_values_does_not_matter(seed, window, power):
    values = torch.randn(50, generator=torch.Generator().manual_seed(seed)).exp()
    score = History().spike_score(window, 2.0, values=values)
    assert History().spike_score(window, 2.0, values=values * 2.0**power) == score


def test_a_long_series_is_taken_in_pieces():
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) + 5
    values[[3000, 7000, 9999]] = torch.tensor([1e9, -1e9, 40.0])
    assert History().spike_score(values=values) == pytest.approx(0.03)
    values[500] = 1e9  # before a window is full
    assert History().spike_score(values=values) == pytest.approx(0.03)


def test_a_spike_is_forgotten_with_its_window():
    values = [1.0, 2.0] * 10 + [1e15] + [1.0, 2.0] * 10 + [40.0]
    assert History().spike_score(8, values=values) == pytest.approx(100 * 2 / len(values))


def test_on_either_side_and_at_just_so_many_deviations():
    assert History().spike_score(4, 3.0, values=[1.0, 3.0, 1.0, 3.0, 5.0]) == 20.0
    assert History().spike_score(4, 3.0, values=[1.0, 3.0, 1.0, 3.0, -1.0]) == 20.0
    assert History().spike_score(4, 3.001, values=[1.0, 3.0, 1.0, 3.0, 5.0]) == 0.0


def test_of_updates_only_the_measured_ones_count():
    history = recorded([1.0])
    with pytest.raises(ValueError, match='of="update" needs norms of updates: none was measured'):
        history.spike_score(of="update")
    for norm in (1.0, 3.0, None, 1.0, 3.0, 90.0):
        history.append(Step(1.0, 1.0, 1.0, 1.0, 0.0, 0.0), None)
        if norm is not None:
            history.put_update(norm)
    assert history.spike_score(4, of="update") == 20.0
    assert history.spike_score(4) == 0.0


def test_of_several_parts_it_is_of_the_whole_gradient():
    history, ones = History(["a", "b"]), torch.ones(6, 2)
    for size in (3.0, 6.0, 3.0, 6.0, 600.0):
        history.append(ones * torch.tensor([size, 1.0]), None)
    assert history.spike_score(4) == 20.0


def test_of_nothing_nothing_is_known():
    assert math.isnan(History().spike_score())
    assert math.isnan(History().spike_score(values=[]))
    assert recorded([1.0, 900.0]).spike_score() == 0.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"window": 0}, "window must be"),
        ({"window": 1.5}, "window must be"),
        ({"sigmas": 0.0}, "sigmas must be"),
        ({"sigmas": math.nan}, "sigmas must be"),
        ({"of": "loss"}, "of must be"),
        ({"values": torch.ones(2, 2)}, "values must be numbers on one axis, got a tensor"),
        ({"values": "losses"}, "values must be numbers on one axis, got 'losses'"),
        ({"values": torch.ones(2, dtype=torch.complex64)}, "values must be numbers on one axis"),
        ({"values": 3.0}, "values must be numbers on one axis, got 3.0"),
    ],
)
def test_bad_arguments_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        recorded([1.0, 2.0]).spike_score(**arguments)
