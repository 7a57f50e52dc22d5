import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cliplab import member_norms, tensor_norms, total_norm
from cliplab.norms import add_norms

ORDERS = [1.0, 2.0, 3.0, 6.0, math.inf]


def exact(tensors, order):
    flat = torch.cat([t.double().flatten() for t in tensors])
    return torch.linalg.vector_norm(flat, order)


@pytest.mark.parametrize("order", ORDERS)
@given(exponent=st.integers(-30, 30), seed=st.integers(0, 100))
def test_norms_are_right_at_every_magnitude_of_fp32(order, exponent, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(3, 4, generator=generator) * 10.0**exponent for _ in range(3)]
    expected = exact(tensors, order)
    torch.testing.assert_close(total_norm(tensors, order).double(), expected, rtol=1e-5, atol=0)
    each = torch.stack([exact([t], order) for t in tensors])
    torch.testing.assert_close(tensor_norms(tensors, order).double(), each, rtol=1e-5, atol=0)
    members = torch.stack([exact([t[m] for t in tensors], order) for m in range(3)])
    torch.testing.assert_close(member_norms(tensors, order).double(), members, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_fp32(dtype):
    grads = [torch.full((1000,), 3000.0, dtype=dtype)]
    torch.testing.assert_close(total_norm(grads), grads[0].float().norm(), rtol=1e-6, atol=0)
    assert total_norm(grads).dtype == torch.float32


def test_mixed_dtypes_keep_input_order():
    grads = [torch.tensor([3.0]), torch.tensor([4.0]).double(), torch.tensor([12.0])]
    assert tensor_norms(grads).tolist() == [3.0, 4.0, 12.0]
    assert total_norm(grads).item() == 13.0


def test_zero_empty_and_nonfinite():
    assert total_norm([]).item() == 0
    assert total_norm([torch.zeros(3), torch.empty(0)]).item() == 0
    assert total_norm([torch.ones(3), torch.empty(0)], math.inf).item() == 1
    assert total_norm([torch.empty(0)]).item() == 0
    assert total_norm([torch.ones(4), torch.empty(0, dtype=torch.float64)]).item() == 2
    assert member_norms([torch.ones(2), torch.ones(2, 0), torch.ones(2, 3)]).tolist() == [2, 2]
    small = [torch.full((4,), 1e-25), torch.full((1,), 1e-26, dtype=torch.float64)]
    assert total_norm(small).item() == pytest.approx(2e-25, rel=0.01)
    assert total_norm([torch.tensor([math.inf, 1.0])]).item() == math.inf
    assert math.isnan(total_norm([torch.tensor([math.nan, 1.0]), torch.ones(2)]).item())
    stacked = [torch.tensor([[0.0], [math.nan], [math.inf], [1e30]])]
    sizes = member_norms(stacked).tolist()
    assert sizes[0] == 0
    assert math.isnan(sizes[1])
    assert sizes[2:] == [math.inf, pytest.approx(1e30)]


@pytest.mark.parametrize("order", [0.5, *ORDERS])
@given(exponents=st.lists(st.integers(-300, 300), min_size=1, max_size=4))
def test_norms_of_any_magnitude_add_up_in_fp64(order, exponents):
    norms = torch.tensor([[10.0**e, 3 * 10.0**e, 0.0] for e in exponents], dtype=torch.float64)
    scale = 10.0 ** max(exponents)
    expected = torch.linalg.vector_norm(norms / scale, order, dim=0) * scale
    torch.testing.assert_close(add_norms(norms, order), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("order", ORDERS)
def test_norms_that_are_not_finite_add_up_to_what_they_are(order):
    norms = torch.tensor([[1.0, math.inf, math.nan], [math.inf, math.nan, 0.0]]).double()
    found = add_norms(norms, order)
    assert found[0] == math.inf
    assert found[1:].isnan().all()
