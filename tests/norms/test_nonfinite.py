"""NaN beside inf: the size is NaN, whichever comes first, wherever they stand."""

import itertools
import math

import pytest
import torch
from making import with_gradients

import cliplab
from cliplab import Clipper, member_norms, tensor_norms, total_norm
from cliplab.norms import all_row_norms, combine, row_norms, wide_norm

INF, NAN = math.inf, math.nan
ORDERS = [0.5, 1.0, 2.0, 3.0, INF]
PLACES = [*itertools.permutations([INF, NAN, 1.0]), (-INF, NAN, NAN), (NAN, 1.0, 1.0)]
SHAPES = {"matrices": [(2, 2)] * 3, "vectors": [(4,)] * 3, "mixed": [(), (5,), (3, 2)]}


def filled(values, shapes, dtype=torch.float32):
    return [torch.full(shape, v, dtype=dtype) for shape, v in zip(shapes, values, strict=True)]


@pytest.fixture(params=[True, False], ids=["looked at", "unseen"])
def look(request, monkeypatch):
    monkeypatch.setattr("cliplab.checks.LOOK", request.param)


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("values", PLACES)
@pytest.mark.parametrize("order", ORDERS)
def test_a_nan_in_any_tensor_makes_the_total_nan(order, values):
    for shapes, dtype in itertools.product(SHAPES.values(), [torch.float32, torch.bfloat16]):
        held = filled(values, shapes, dtype)
        assert total_norm(held, order).isnan()
        assert cliplab.get_total_norm(held, order).isnan()
        assert combine(tensor_norms(held, order), order).isnan()
        for own, value in zip(tensor_norms(held, order).tolist(), values, strict=True):
            assert math.isnan(own) == math.isnan(value)
            assert math.isinf(own) == math.isinf(value)


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("values", PLACES)
@pytest.mark.parametrize("order", ORDERS)
def test_a_nan_in_a_row_makes_the_row_nan_and_no_other(order, values):
    row = torch.tensor(values)
    held = torch.stack([row, torch.ones(3), torch.full((3,), INF)])
    members = [held[:, :1], held[:, 1:2].reshape(3, 1, 1), held[:, 2]]
    found = {
        "rows": row_norms(held, (1,), order),
        "columns": row_norms(held.t(), (0,), order),
        "all rows": all_row_norms([held], [(1,)], order),
        "members": member_norms(members, order),
        "all members": all_row_norms(members, [(1,), (1, 2), ()], order, members=True),
        "wide": wide_norm(held, (1,), order).flatten(),
    }
    for name, sizes in found.items():
        assert sizes.isnan().tolist() == [True, False, False], name
        assert sizes.isinf().tolist() == [False, False, True], name


@pytest.mark.parametrize("values", PLACES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shapes", SHAPES)
def test_the_drop_ins_answer_as_torch_does(shapes, order, values):
    ours, theirs = (with_gradients(*filled(values, SHAPES[shapes])) for _ in range(2))
    norm = cliplab.clip_grad_norm_(ours, 1.0, order)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0, order)
    pairs = [(norm, expected), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]
    for found, right in pairs:
        torch.testing.assert_close(found, right, equal_nan=True, rtol=0, atol=0)


ALL_NAN = {
    "global": lambda ps: Clipper(ps, 1.0, nonfinite="propagate").clip(),
    "group": lambda ps: Clipper([{"params": ps}], 1.0, scope="group", nonfinite="propagate").clip(),
    "clip_by_global_norm_": lambda ps: cliplab.clip_by_global_norm_([p.grad for p in ps], 1.0),
    "clip_grad_norm_": lambda ps: cliplab.clip_grad_norm_(ps, 1.0),
}


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("values", PLACES)
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("name", ALL_NAN)
def test_a_nan_anywhere_makes_all_of_a_common_part_nan(name, shapes, values):
    params = with_gradients(*filled(values, SHAPES[shapes]))
    ALL_NAN[name](params)
    assert all(p.grad.isnan().all() for p in params)


EACH = {  # forms with parts of their own, of one row each
    "tensor": lambda p: Clipper(p, 1.0, scope="tensor", nonfinite="propagate").clip(),
    "unit": lambda p: Clipper(p, 1.0, scope="unit", nonfinite="propagate").clip(),
    "member": lambda p: Clipper([p], 1.0, scope="member", nonfinite="propagate").clip(),
    "clip_by_norm_": lambda p: cliplab.clip_by_norm_(p.grad, 1.0),
    "clip_by_norm_, dim": lambda p: cliplab.clip_by_norm_(p.grad, 1.0, 1),
    "adaptive_clip_": lambda p: cliplab.adaptive_clip_(p),
    "clip_activation_grad_": lambda p: setattr(p, "grad", through_a_hook(p.grad)),
}


def through_a_hook(grad):
    x = torch.ones_like(grad, requires_grad=True)
    cliplab.clip_activation_grad_(x * 1, 1.0, 2.0).backward(grad)
    return x.grad


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("values", PLACES)
@pytest.mark.parametrize("name", EACH)
def test_a_nan_in_a_part_makes_all_of_it_nan(name, values):
    (param,) = with_gradients(torch.tensor([values]))
    EACH[name](param)
    assert param.grad.isnan().all()


@pytest.mark.parametrize("values", PLACES)
def test_element_by_element_a_nan_stays_where_it_is(values):
    expected = torch.tensor(values).clamp(-0.5, 0.5)
    for clip in (
        lambda p: Clipper(p, 0.5, scope="element", nonfinite="propagate").clip(),
        lambda p: cliplab.clip_grad_value_(p, 0.5),
        lambda p: cliplab.clip_by_value_(p.grad, -0.5, 0.5),
    ):
        (param,) = with_gradients(torch.tensor(values))
        clip(param)
        torch.testing.assert_close(param.grad, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("values", PLACES)
def test_the_error_names_a_nan_beside_an_inf(values):
    params = with_gradients(*filled(values, SHAPES["matrices"]))
    with pytest.raises(cliplab.NonFiniteGradientError, match="norm is nan"):
        Clipper(params, 1.0).clip()
    with pytest.raises(RuntimeError, match="is nan"):
        cliplab.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
