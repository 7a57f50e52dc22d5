import math

import pytest
import torch

from cliplab.norms import all_row_norms, member_norms, rough_row_norms, row_norms

DIMS = [(1,), (1,), (0,), (1, 3)]
SHAPES = [(3, 4), (5, 2), (6,), (2, 3, 4, 5)]
MEMBERS = [(3, 4), (3,), (3, 2, 5)]


def tensors(shapes, scale, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(shape, generator=generator) * scale).to(dtype) for shape in shapes]


def one_by_one(held, norm_type=2.0):
    return torch.cat([row_norms(t, dims, norm_type) for t, dims in zip(held, DIMS, strict=True)])


@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, 0.0, math.nan, math.inf])
@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, math.inf])
def test_all_rows_are_measured_as_one_tensor_s_are(order, scale):
    held = tensors(SHAPES, 1.0)
    held[1] = held[1] * scale
    held[2][0] *= scale
    torch.testing.assert_close(
        all_row_norms(held, DIMS, order), one_by_one(held, order), equal_nan=True, atol=0, rtol=1e-6
    )


@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, 0.0, math.nan, math.inf])
@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, math.inf])
def test_members_in_few_calls_are_those_of_member_norms(order, scale):
    held = tensors(MEMBERS, 1.0)
    for t in held:
        t[0] *= scale
    together = all_row_norms(held, [(1,), (), (1, 2)], order, members=True)
    expected = member_norms(held, order)
    torch.testing.assert_close(together, expected, equal_nan=True, atol=0, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-3])
def test_rough_row_norms_are_row_norms(dtype, scale):
    held = tensors(SHAPES, scale, dtype)
    torch.testing.assert_close(rough_row_norms(held, DIMS), one_by_one(held), atol=0, rtol=1e-6)


def test_rough_row_norms_are_right_where_a_sum_overflows_and_from_1e_12_on():
    held = tensors(SHAPES, 1.0)
    held[0][1] *= 1e30
    held[1][0] *= 1e-11
    torch.testing.assert_close(rough_row_norms(held, DIMS), one_by_one(held), atol=0, rtol=1e-6)
    held[1] *= 1e-30
    assert rough_row_norms(held, DIMS)[3:8].max() <= 1e-20


def test_a_scalar_is_a_row_of_one_entry_even_a_vanished_one():
    for value in (3.0, 0.0, 1e-30):
        assert row_norms(torch.tensor(value), ()).tolist() == [pytest.approx(value)]


def test_rows_of_an_empty_tensor_are_zero():
    assert row_norms(torch.ones(3, 0), (1,), math.inf).tolist() == [0.0, 0.0, 0.0]
    assert row_norms(torch.ones(0, 3), (1,)).tolist() == []
