"""Sums of very many entries: as right as short ones, in every layout, dtype and order."""

import math

import pytest
import torch
from making import with_gradients

import cliplab
from cliplab import Clipper, member_norms, tensor_norms, total_norm
from cliplab.norms import all_row_norms, row_norms, torch_norm

SHORT = 1 << 20  # up to here the bits are those of one plain sum
ORDERS = [0.5, 1.0, 2.0, 3.0, math.inf]
ERRORS = {torch.bfloat16: 1e-4, torch.float16: 1e-4}  # relative; of all others 1e-5


def exact(tensor, order, dims=None):
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return torch.linalg.vector_norm(tensor, order, dims, dtype=wide)


def assert_right(found, expected, dtype):
    torch.testing.assert_close(found.double(), expected, rtol=ERRORS.get(dtype, 1e-5), atol=0)


def entries(count, dtype, kind):
    if kind == "constant":
        return torch.full((count,), 0.1).to(dtype)
    real = torch.randn(count, generator=torch.Generator().manual_seed(0))
    return torch.complex(real, real.flip(0)) if dtype.is_complex else real.to(dtype)


LAYOUTS = {  # each of a little more than SHORT entries, of what is given
    "contiguous": lambda t: t,
    "every second": lambda t: t[::2],
    "transposed": lambda t: t[: 1099 * 1907].view(1099, 1907).t(),
    "columns": lambda t: t[: 1021 * 2053].view(1021, 2053)[:, 3:1100],
    "narrow columns": lambda t: t[:2097150].view(-1, 6)[:, :4],
    "channels last": lambda t: (
        t[: 500 * 300 * 3 * 3].view(500, 300, 3, 3).contiguous(memory_format=torch.channels_last)
    ),
    "permuted slice": lambda t: t[: 2**21].view(128, 128, 128).permute(2, 0, 1)[:, 1:, :-1],
    "repeated": lambda t: t[:1200].expand(1000, 1200),
}


@pytest.mark.parametrize("kind", ["normal", "constant"])
@pytest.mark.parametrize(
    ("dtype", "order"),
    [(dtype, order) for dtype in (torch.float32, torch.bfloat16) for order in ORDERS]
    + [(torch.float16, 2.0), (torch.complex64, 1.0), (torch.complex64, 2.0), (torch.float64, 2.0)],
)
def test_a_large_tensor_of_any_layout_is_measured_right(dtype, order, kind):
    given = entries(2 * SHORT + 1111, dtype, kind)
    for name, view in LAYOUTS.items():
        tensor = view(given)
        assert tensor.numel() > SHORT, name
        expected = exact(tensor, order)
        assert_right(total_norm([tensor], order), expected, dtype)
        assert_right(tensor_norms([torch.ones(3), tensor], order)[1], expected, dtype)


@pytest.mark.parametrize(
    ("dtype", "order"),
    [(torch.float32, order) for order in ORDERS]
    + [(torch.bfloat16, 1.0), (torch.bfloat16, 2.0), (torch.complex64, 2.0)],
)
def test_long_rows_on_any_axes_are_measured_right(dtype, order):
    given = entries(2 * SHORT + 4000, dtype, "normal")
    wide = given.view(2, -1)
    assert_right(row_norms(wide, (1,), order), exact(wide, order, 1), dtype)
    assert_right(row_norms(wide.t(), (0,), order), exact(wide, order, 1), dtype)
    assert_right(row_norms(wide, (0, 1), order), exact(wide, order).view(1), dtype)
    assert_right(
        member_norms([wide, wide], order), exact(torch.cat([wide] * 2, 1), order, 1), dtype
    )
    kernel = given[: 350 * 2 * 3000].view(350, 2, 60, 50)
    of_filters = exact(kernel, order, (0, 2, 3))
    assert_right(row_norms(kernel, (0, 2, 3), order), of_filters, dtype)
    found = all_row_norms([kernel, given, wide], [(0, 2, 3), (0,), (1,)], order)
    expected = [of_filters, exact(given, order).view(1), exact(wide, order, 1)]
    assert_right(found, torch.cat(expected), dtype)
    found = all_row_norms([wide, wide[:, :5]], [(1,), (1,)], order, members=True)
    assert_right(found, exact(torch.cat([wide, wide[:, :5]], 1), order, 1), dtype)


@pytest.mark.parametrize("order", ORDERS)
def test_where_nobody_looks_large_tensors_are_measured_right(monkeypatch, order):
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    given = entries(2 * SHORT + 4000, torch.float32, "constant")
    wide, expected = given.view(2, -1), exact(given, order)
    for norm in (total_norm([given], order), tensor_norms([given], order)[0]):
        assert_right(norm, expected, torch.float32)
    assert_right(cliplab.get_total_norm([given], order), expected, torch.float32)
    assert_right(row_norms(wide, (1,), order), exact(wide, order, 1), torch.float32)
    assert_right(member_norms([wide], order), exact(wide, order, 1), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("order", [1.0, 2.0])
def test_a_sum_does_not_stagnate(dtype, order):
    ones, count = torch.ones(1, dtype=dtype), (1 << 26) + 5
    expected = count ** (1 / order)
    assert float(total_norm([ones.expand(count)], order)) == pytest.approx(expected, rel=1e-6)
    rows = ones.expand(2, count // 2)
    expected = (count // 2) ** (1 / order)
    assert row_norms(rows, (1,), order).tolist() == pytest.approx([expected] * 2, rel=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_very_many_tensors_are_measured_as_one(order):
    vector, matrix = torch.full((3000,), 0.1), torch.full((2, 2), 0.1)  # vectors are joined
    for part, count in ((vector, 700), (matrix, 20_000), (matrix.bfloat16(), 20_000)):
        held = [part] * count
        expected = exact(torch.stack(held[:1]), order) * len(held) ** (1 / order)
        assert_right(total_norm(held, order), expected, torch.float32)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("order", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_large_tensor_whose_powers_overflow_or_vanish_is_measured_again(transposed, order, scale):
    tensor = entries(1500 * 1400, torch.float32, "normal").view(1500, 1400) * scale
    tensor = tensor.t() if transposed else tensor
    assert_right(total_norm([tensor], order), exact(tensor, order), torch.float32)
    assert_right(tensor_norms([tensor], order)[0], exact(tensor, order), torch.float32)
    rows = tensor.reshape(1, -1)
    assert_right(row_norms(rows, (1,), order), exact(rows, order, 1), torch.float32)
    assert_right(all_row_norms([rows], [(1,)], order), exact(rows, order, 1), torch.float32)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 255, SHORT, -1])
def test_what_is_not_finite_is_found_anywhere_in_a_large_tensor(place, bad):
    tensor = torch.ones(SHORT + 100)
    tensor[place] = bad
    for order in ORDERS:
        for norm in (total_norm([tensor], order), row_norms(tensor, (0,), order)[0]):
            torch.testing.assert_close(float(norm), bad, equal_nan=True)


@pytest.mark.parametrize("order", ORDERS)
def test_up_to_a_million_entries_the_bits_are_those_of_one_sum(order):
    for count in (1000, SHORT):
        for tensor in (torch.rand(count), torch.rand(count).bfloat16(), torch.rand(2 * count)[::2]):
            (plain,) = torch._foreach_norm([tensor], order, dtype=torch.float32)
            if order == 2 and tensor.dtype is torch.float32 and tensor.is_contiguous():
                plain = torch.dot(tensor, tensor).sqrt() if count == SHORT else plain
            assert torch.equal(total_norm([tensor], order), plain)
            row = torch.linalg.vector_norm(tensor, order, (0,), dtype=torch.float32).view(1)
            assert torch.equal(row_norms(tensor, (0,), order), row)


@pytest.mark.parametrize("order", ORDERS)
def test_the_drop_ins_are_torchs_up_to_a_million_entries_and_right_above(order):
    short = torch.rand(SHORT)
    assert torch.equal(torch_norm([short], order), torch.nn.utils.get_total_norm([short], order))
    long = torch.full((1,), 0.1).expand(1 << 23)
    assert_right(cliplab.get_total_norm([long], order), exact(long, order), torch.float32)
    if order in (1.0, 3.0):
        wrong = torch.nn.utils.get_total_norm([long], order).double()
        assert abs(wrong / exact(long, order) - 1) > 1e-3
    double = torch.rand(2 * SHORT).double()
    assert torch.equal(torch_norm([double], order), torch.nn.utils.get_total_norm([double], order))


CLIPS = {  # by whom the gradient is brought to a norm of 1
    "clip_grad_norm_": lambda p, order: cliplab.clip_grad_norm_(p, 1.0, order),
    "clip_by_norm_": lambda p, order: cliplab.clip_by_norm_(p.grad, 1.0),
    "clip_by_norm_, dim": lambda p, order: cliplab.clip_by_norm_(p.grad, 1.0, 0),
    "clip_by_global_norm_": lambda p, order: cliplab.clip_by_global_norm_([p.grad], 1.0),
    "adaptive_clip_": lambda p, order: cliplab.adaptive_clip_(p, 1.0, 1.0),
    "global": lambda p, order: Clipper(p, 1.0, norm_type=order).clip(),
    "tensor": lambda p, order: Clipper(p, 1.0, scope="tensor", norm_type=order).clip(),
    "unit": lambda p, order: Clipper(p, 1.0, scope="unit", norm_type=order).clip(),
    "agc": lambda p, order: cliplab.create("agc", [p], ratio=1.0, eps=1.0).clip(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CLIPS)
def test_the_limit_is_kept_by_large_gradients(name, dtype):
    orders = [1.0, 2.0] if name in ("clip_grad_norm_", "global", "tensor", "unit") else [2.0]
    for order in orders:
        grad = entries(1 << 22, dtype, "normal")
        (param,) = with_gradients(grad, weights=[torch.zeros_like(grad)])
        CLIPS[name](param, order)
        rounding = 1e-5 if dtype is torch.float32 else 3e-3
        assert float(exact(param.grad, order)) == pytest.approx(1.0, rel=rounding)


def test_the_limit_is_kept_by_large_members_and_sparse_rows():
    stacked = entries(3 << 20, torch.float32, "constant").view(2, -1)
    (param,) = with_gradients(stacked)
    Clipper(param, 1.0, scope="member").clip()
    assert exact(param.grad, 2.0, 1).tolist() == pytest.approx([1.0, 1.0], rel=1e-5)
    table = torch.nn.Parameter(torch.zeros(9, 3 << 19))
    for clip in (
        lambda: Clipper(table, 1.0).clip(),
        lambda: cliplab.clip_grad_norm_(table, 1.0),
        lambda: Clipper(table, 1.0 / math.sqrt(2), scope="unit").clip(),
        lambda: cliplab.adaptive_clip_(table, 1.0 / math.sqrt(2), 1.0),
    ):
        table.grad = torch.sparse_coo_tensor([[2, 7]], stacked, table.shape, check_invariants=True)
        clip()
        assert float(exact(table.grad.coalesce().values(), 2.0)) == pytest.approx(1.0, rel=1e-5)


def test_element_scope_reports_the_factor_of_a_large_gradient():
    (param,) = with_gradients(entries(1 << 22, torch.float32, "constant"))
    report = Clipper(param, 0.05, scope="element").clip()
    assert float(report.factor) == pytest.approx(0.5, rel=1e-5)
