"""Every shape on every way: direct, measured again, few calls or one by one, looked at or not."""

import itertools
import math

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab import Clipper, member_norms, tensor_norms, total_norm
from cliplab.norms import all_row_norms, row_norms

SHAPES = {  # and the axes of a row
    "scalar": ((), ()),
    "one entry": ((1,), (0,)),
    "vector": ((5,), (0,)),
    "rows of one entry": ((4,), ()),
    "matrix": ((3, 4), (1,)),
    "columns": ((3, 4), (0,)),
    "one row": ((1, 4), (1,)),
    "one column": ((4, 1), (1,)),
    "filters": ((3, 2, 2, 2), (1, 2, 3)),
    "transposed filters": ((2, 3, 2, 2), (0, 2, 3)),
    "all axes": ((2, 3), (0, 1)),
    "no axes": ((2, 3), ()),
}
EMPTY = {"no rows": ((0, 3), (1,)), "empty rows": ((3, 0), (1,)), "empty": ((0,), (0,))}
SCALES = [1.0, 0.0, 1e-30, 1e30]  # the last three are measured again
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.complex64]


@pytest.fixture(params=[True, False], ids=["looked at", "unseen"])
def look(request, monkeypatch):
    monkeypatch.setattr("cliplab.checks.LOOK", request.param)


def made(shape, dtype, scale):
    generator = torch.Generator().manual_seed(0)
    scale = 6e-5 * (scale > 1e-30) if dtype is torch.float16 and scale != 1.0 else scale
    return (torch.randn(shape, generator=generator).sign() * scale).to(dtype)


def exact(tensor, dims, order):
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    if not tensor.numel():
        kept = [size for d, size in enumerate(tensor.shape) if d not in dims]
        return torch.zeros(math.prod(kept), dtype=torch.float64)
    if not dims:
        return tensor.to(wide).abs().flatten()
    return torch.linalg.vector_norm(tensor, order, dims, dtype=wide).flatten()


def assert_same(found, expected):
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, 3.0, math.inf])
def test_rows_of_every_shape(order, dtype):
    overflows = order == 0.5 and dtype is not torch.float64  # the norm itself would, at 1e30
    scales = SCALES[:3] if overflows else SCALES
    for (shape, dims), scale in itertools.product((SHAPES | EMPTY).values(), scales):
        tensor = made(shape, dtype, scale)
        expected = exact(tensor, dims, order)
        assert_same(row_norms(tensor, dims, order), expected)
        if tensor.numel():
            beside = made((2, 3), dtype, 1.0)  # that one is to be measured again, the other not
            found = all_row_norms([beside, tensor], [(1,), dims], order)
            assert_same(found, torch.cat([exact(beside, (1,), order), expected]))
        assert_same(tensor_norms([tensor], order), exact(tensor, tuple(range(len(shape))), order))
        assert_same(total_norm([tensor, tensor.new_ones(2)], order), with_ones(tensor, order))


def with_ones(tensor, order):
    both = torch.cat([tensor.flatten(), tensor.new_ones(2)])
    return exact(both, (0,), order)[0]


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("dtype", DTYPES)
def test_members_of_every_shape(dtype):
    for (shape, _), scale in itertools.product((SHAPES | EMPTY).values(), SCALES):
        if shape and shape[0]:
            tensor = made(shape, dtype, scale)
            dims, beside = tuple(range(1, len(shape))), made((shape[0], 2), dtype, 1.0)
            joined = torch.cat([tensor.reshape(shape[0], -1), beside], 1)
            assert_same(member_norms([tensor, beside]), exact(joined, (1,), 2.0))
            if tensor.numel():
                found = all_row_norms([tensor, beside], [dims, (1,)], members=True)
                assert_same(found, exact(joined, (1,), 2.0))


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("gradient", [1.0, 0.0, 1e-30, 1e30])
@pytest.mark.parametrize("weight", [0.0, 1e-30, 1.0, 1e30])
def test_a_gain_is_clipped_whatever_its_weight_and_gradient(weight, gradient):
    expected = min(gradient, 0.01 * max(weight, 1e-3))
    for clip in (
        lambda ps: cliplab.create("agc", ps, nonfinite="propagate").clip(),
        cliplab.adaptive_clip_,
    ):
        params = with_gradients(
            torch.tensor(gradient),
            torch.randn(3, 2),
            weights=[torch.tensor(weight), torch.zeros(3, 2)],
        )
        clip(params)
        assert float(params[0].grad) == pytest.approx(expected, rel=1e-5)


def test_a_temperature_may_have_no_gradient_on_some_steps():
    model = nn.Sequential(nn.Linear(3, 2))
    scale = nn.Parameter(torch.tensor(1.0))
    clipper = Clipper([*model.parameters(), scale], 0.5, scope="unit")
    for step in range(6):
        model(torch.ones(2, 3)).sum().backward()
        scale.grad = torch.tensor(2.0 * (step % 2))
        clipper.clip()
        assert float(scale.grad) == 0.5 * (step % 2)
    assert clipper.history.norm_before[:, -1].tolist() == [0.0, 2.0] * 3


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("value", [2.0, 0.0])
@pytest.mark.parametrize("rows", [[1, 3], [], [0, 0]])
def test_a_scalar_beside_a_sparse_embedding(rows, value):
    scalar, table = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.zeros(4, 2))
    stored = torch.full((len(rows), 2), 3.0)
    for clip in (
        lambda: cliplab.adaptive_clip_([scalar, table], 1.0, 0.5),
        lambda: cliplab.create(
            "agc", [scalar, table], ratio=1.0, eps=0.5, nonfinite="propagate"
        ).clip(),
        lambda: Clipper([scalar, table], 0.5, scope="unit", nonfinite="propagate").clip(),
    ):
        scalar.grad = torch.tensor(value)
        at = torch.tensor([rows], dtype=torch.int64)
        table.grad = torch.sparse_coo_tensor(at, stored, (4, 2), check_invariants=True)
        clip()
        assert float(scalar.grad) == pytest.approx(min(value, 0.5))
        sizes = table.grad.to_dense().norm(dim=1).tolist()
        assert sizes == pytest.approx([0.5 * (row in rows) for row in range(4)])
