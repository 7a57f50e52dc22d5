"""Looked at on a host or by nobody on a device: the same sizes."""

import math

import pytest
import torch

from cliplab import member_norms, tensor_norms, total_norm
from cliplab.checks import may_look
from cliplab.norms import all_row_norms, row_norms, torch_norm, wide_norm

MEASURES = {
    "total": total_norm,
    "tensor": tensor_norms,
    "torch": torch_norm,
    "member": member_norms,
    "row": lambda ts, order: row_norms(ts[0], (1,), order),
    "row of one entry": lambda ts, order: row_norms(ts[1], (), order),
    "all rows": lambda ts, order: all_row_norms(ts, [(1,), (0,), (0, 2)], order),
    "all members": lambda ts, order: all_row_norms(ts, [(1,), (), (1, 2)], order, members=True),
}


def tensors(dtype, scale):
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (3,), (3, 2, 5)]
    return [(torch.randn(shape, generator=generator) * scale).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, math.nan, math.inf])
@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("name", [name for name in MEASURES if name != "torch"])
def test_both_sides_are_right_at_every_magnitude(monkeypatch, name, order, scale, dtype):
    held = tensors(dtype, 1.0)
    held = [t * scale for t in held]
    looked_at = MEASURES[name](held, order)
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    unseen = MEASURES[name](held, order)
    torch.testing.assert_close(unseen, looked_at, equal_nan=True, atol=0, rtol=2e-6)


def test_tensors_of_several_dtypes_are_kept_in_their_own_precision(monkeypatch):
    held = [torch.tensor([0.1, 0.2]), torch.tensor([0.1, 0.2]).double(), torch.ones(2).bfloat16()]
    looked_at = tensor_norms(held)
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    assert torch.equal(tensor_norms(held), looked_at)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", MEASURES)
def test_compiled_code_measures_in_one_graph(name):
    torch.compiler.reset()
    held = tensors(torch.float32, 1e-25 if name != "torch" else 1.0)

    def measure(tensors):
        return MEASURES[name](tensors, 2.0)

    compiled = torch.compile(measure, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(held), measure(held), atol=0, rtol=1e-6)


@pytest.mark.parametrize("order", [2.0, math.inf])
def test_a_wide_norm_is_a_row_norm_with_its_axes(order):
    tensor = torch.randn(3, 4, 5) * 1e25
    norm = wide_norm(tensor, (2,), order)
    assert norm.shape == (3, 4, 1)
    torch.testing.assert_close(norm.flatten(), row_norms(tensor, (2,), order), atol=0, rtol=1e-6)


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, math.inf])
def test_long_and_short_vectors_and_large_tensors_are_measured_as_any_other(order):
    # fp32 sums of 360,000 entries are off by up to 1e-4, as torch's are
    generator = torch.Generator().manual_seed(0)
    shapes = [(5,), (7,), (600, 600), (9,), (5000,), (2, 3), (1,)]
    held = [torch.randn(shape, generator=generator) for shape in shapes]
    exact = torch.cat([t.double().flatten() for t in held])
    expected = torch.linalg.vector_norm(exact, order)
    torch.testing.assert_close(total_norm(held, order).double(), expected, atol=0, rtol=2e-4)
    each = torch.stack([torch.linalg.vector_norm(t.double(), order) for t in held])
    torch.testing.assert_close(tensor_norms(held, order).double(), each, atol=0, rtol=2e-4)


def test_one_switch_says_that_nothing_is_looked_at(monkeypatch):
    assert may_look(torch.ones(1))
    assert not may_look(torch.ones(1, device="meta"))
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    assert not may_look(torch.ones(1))
