import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab.norms import all_row_norms, flagged, member_norms, row_norms, tensor_norms

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


ALIKE = [(8,)] * 6 + [(6, 8)] * 7 + [(1,)] * 5 + [(8, 6)]


@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, 0.0, math.nan])
@pytest.mark.parametrize("order", [2.0, math.inf])
def test_tensors_of_one_shape_measured_together_have_the_bits_of_each(order, scale):
    held = tensors(ALIKE, 1.0)
    held[2] *= scale
    held[8][1] *= scale
    held[9] = held[9].t().contiguous().t()  # its entries are added up in another order
    dims = [(t.ndim - 1,) for t in held]
    each = torch.cat([row_norms(t, own, order) for t, own in zip(held, dims, strict=True)])
    assert torch.equal(all_row_norms(held, dims, order).nan_to_num(-1), each.nan_to_num(-1))
    alone = torch.cat([tensor_norms([t], order) for t in held])
    assert torch.equal(tensor_norms(held, order).nan_to_num(-1), alone.nan_to_num(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_largest_entry_is_that_of_vector_norm(dtype):
    held = tensors([(70, 90), (5000,), (3, 2, 4096)], 1.0, dtype)
    held[1] = -held[1].abs()
    exact = [torch.linalg.vector_norm(t.double(), math.inf) for t in held]
    assert tensor_norms(held, math.inf).tolist() == [float(e) for e in exact]
    rows = torch.linalg.vector_norm(held[2].double(), math.inf, (1, 2))
    assert row_norms(held[2], (1, 2), math.inf).tolist() == rows.tolist()
    assert str(row_norms(torch.zeros(1, 3), (1,), math.inf).item()) == "0.0"  # not -0


@given(st.lists(st.lists(st.booleans(), max_size=4), min_size=1, max_size=6))
def test_flagged_runs_are_those_that_hold_a_flag(runs):
    flags = torch.tensor([flag for run in runs for flag in run], dtype=torch.bool)
    assert flagged(flags, [len(run) for run in runs]) == [i for i, r in enumerate(runs) if any(r)]


def test_a_scalar_is_a_row_of_one_entry_even_a_vanished_one():
    for value in (3.0, 0.0, 1e-30):
        assert row_norms(torch.tensor(value), ()).tolist() == [pytest.approx(value)]


def test_rows_of_an_empty_tensor_are_zero():
    assert row_norms(torch.ones(3, 0), (1,), math.inf).tolist() == [0.0, 0.0, 0.0]
    assert row_norms(torch.ones(0, 3), (1,)).tolist() == []
