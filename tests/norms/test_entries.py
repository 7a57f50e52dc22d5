"""Complex entries clamped to a magnitude: exact in direction and size, at every magnitude."""

import cmath
import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab.norms import clamp_

INF, NAN = math.inf, math.nan
LARGEST = {torch.complex64: torch.finfo(torch.float32).max, torch.complex128: sys.float_info.max}
EPS = {torch.complex64: 2**-23, torch.complex128: 2**-52}


def clamped(value, limit, dtype=torch.complex64):
    entries = torch.tensor([value], dtype=dtype)
    clamp_(entries, limit)
    return entries.item()


@pytest.mark.parametrize("dtype", EPS)
@given(size=st.floats(-37, 38), limit=st.floats(-37, 38), angle=st.floats(-math.pi, math.pi))
def test_the_magnitude_is_the_smaller_one_and_the_direction_stays(dtype, size, limit, angle):
    value = torch.tensor(cmath.rect(10**size, angle), dtype=dtype)
    bound = torch.tensor(10**limit, dtype=torch.float64 if dtype.is_complex else dtype).item()
    after, given_ = clamped(value.item(), bound, dtype), value.item()
    if abs(given_) <= bound * (1 - 4 * EPS[dtype]):
        assert after == given_
    else:
        assert abs(after) == pytest.approx(min(abs(given_), bound), rel=8 * EPS[dtype])
        assert cmath.phase(after) == pytest.approx(cmath.phase(given_), abs=8 * EPS[dtype])


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("part", [1.0, 0.5])
def test_entries_whose_magnitude_overflows_are_not_zeroed(dtype, part):
    largest = LARGEST[dtype] * part
    for value in (complex(largest, largest), complex(-largest, largest), complex(0, -largest)):
        after = clamped(value, 2.0, dtype)
        assert abs(after) == pytest.approx(2.0, rel=1e-6)
        assert cmath.phase(after) == pytest.approx(cmath.phase(value), rel=1e-6)
        assert clamped(value, INF, dtype) == value


def test_a_limit_that_is_tiny_beside_the_entry_is_kept():
    assert clamped(complex(3e38, 0), 1e-30) == pytest.approx(1e-30)


@pytest.mark.parametrize("limit", [0.0, 1.0, INF, torch.tensor(1.0)])
def test_zeros_stay_zero_at_every_limit(limit):
    assert clamped(0j, limit) == 0


def test_a_limit_of_zero_leaves_nothing():
    assert clamped(3 + 4j, 0.0) == 0


def test_infinite_entries_go_to_the_limit_as_real_ones_do_and_nan_stays():
    for value, direction in [
        (complex(INF, 1.0), 1),
        (complex(0.0, -INF), -1j),
        (complex(-INF, INF), cmath.rect(1, 3 * math.pi / 4)),
    ]:
        after = clamped(value, 2.0)
        assert after.real == pytest.approx(2 * direction.real, abs=1e-6)
        assert after.imag == pytest.approx(2 * direction.imag, abs=1e-6)
    for value in (complex(NAN, 5.0), complex(5.0, NAN), complex(INF, NAN)):
        assert cmath.isnan(clamped(value, 2.0))


def test_a_strided_complex_tensor_is_clamped_where_it_lies():
    whole = torch.full((4, 6), 3 + 4j)
    clamp_(whole.t()[::2], 1.0)
    assert whole[0, 0].item() == pytest.approx(0.6 + 0.8j)
    assert whole[0, 1].item() == 3 + 4j


def test_a_conjugated_view_is_clamped_where_it_lies():
    whole = torch.tensor([3 + 4j])
    clamp_(whole.conj(), 1.0)
    assert whole.item() == pytest.approx(0.6 + 0.8j)
