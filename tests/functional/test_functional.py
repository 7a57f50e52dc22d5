"""The drop-ins: torch's bits where they are promised, and each listed difference."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import with_gradients
from torch import nn

import cliplab

INF, NAN = math.inf, math.nan


def tensors(*rows, dtype=torch.float32):
    return [torch.tensor(row, dtype=dtype) for row in rows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(
    seed=st.integers(0, 1000),
    max_norm=st.floats(0, 20),
    order=st.sampled_from([1.0, 2.0, 0.5, 3.0, math.inf]),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_clip_grad_norm_is_torchs_bit_for_bit(dtype, seed, max_norm, order, scale):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (5,), (2, 3, 4)]
    grads = [torch.randn(s, generator=generator, dtype=dtype) * scale for s in shapes]
    ours, theirs = with_gradients(*grads), with_gradients(*grads)
    norm = cliplab.clip_grad_norm_(ours, max_norm, order)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, order)
    assert torch.equal(norm, expected)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


@given(seed=st.integers(0, 1000), limit=st.floats(0, 3))
def test_clip_grad_value_is_torchs(seed, limit):
    grads = [torch.randn(6, generator=torch.Generator().manual_seed(seed))]
    ours, theirs = with_gradients(*grads), with_gradients(*grads)
    cliplab.clip_grad_value_(ours, limit)
    torch.nn.utils.clip_grad_value_(theirs, limit)
    assert torch.equal(ours[0].grad, theirs[0].grad)


def test_error_if_nonfinite_leaves_gradients():
    params = with_gradients(torch.tensor([math.inf, 1.0]))
    with pytest.raises(RuntimeError, match=r"total norm of order 2\.0 is inf"):
        cliplab.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[0].grad.tolist() == [math.inf, 1.0]


def test_generators_single_tensors_and_no_gradients():
    params = with_gradients(torch.tensor([3.0, 4.0]))
    assert cliplab.clip_grad_norm_((p for p in params), 10.0).item() == 5.0
    assert cliplab.clip_grad_norm_(params[0], 10.0).item() == 5.0
    assert cliplab.clip_grad_norm_([torch.nn.Parameter(torch.zeros(2))], 1.0).item() == 0.0


SAME_AS_TORCH = {
    "eps shrinks at the limit": ([[3.0, 4.0]], 5.0, 2.0, 5.0),
    "and just above it": ([[3.0, 4.0]], 5.0000005, 2.0, 5.0),
    "far below the limit": ([[0.3, 0.4]], 9.0, 2.0, 0.5),
    "two tensors": ([[3.0, 4.0], [0.0, 12.0]], 1.0, 2.0, 13.0),
    "two shapes": ([[3.0, 4.0], [12.0]], 6.5, 2.0, 13.0),
    "eps dominates": ([[3e-9, 4e-9]], 1e-9, 2.0, 5e-9),
    "eps clips what is below the limit": ([[3e-9, 4e-9]], 1e-7, 2.0, 5e-9),
    "zeros": ([[0.0, 0.0]], 1.0, 2.0, 0.0),
    "zeros at 0": ([[0.0, 0.0]], 0.0, 2.0, 0.0),
    "limit 0": ([[3.0, 4.0]], 0.0, 2.0, 5.0),
    "limit inf": ([[3.0, 4.0]], INF, 2.0, 5.0),
    "p=1": ([[3.0, -4.0, 0.0], [1.0, 0.0]], 3.0, 1.0, 8.0),
    "p=2": ([[3.0, -4.0, 0.0], [1.0, 0.0]], 3.0, 2.0, 5.0990195),
    "p=3": ([[3.0, -4.0, 0.0], [1.0, 0.0]], 3.0, 3.0, 4.5143576),
    "p=1/2": ([[3.0, -4.0, 0.0], [1.0, 0.0]], 3.0, 0.5, 22.3923054),
    "p=inf": ([[3.0, -4.0, 0.0], [1.0, 0.0]], 3.0, INF, 4.0),
    "p='inf'": ([[3.0, -4.0, 0.0], [1.0, 0.0]], 3.0, "inf", 4.0),
    "nan": ([[NAN, 4.0], [1.0]], 1.0, 2.0, NAN),
    "inf": ([[INF, 4.0], [1.0]], 1.0, 2.0, INF),
    "-inf": ([[-INF, 4.0], [1.0]], 1.0, 2.0, INF),
    "inf and limit inf": ([[INF, 4.0], [1.0]], INF, 2.0, INF),
    "an empty tensor": ([[3.0, 4.0], []], 1.0, 2.0, 5.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", SAME_AS_TORCH)
def test_where_equality_is_promised_every_bit_is_torchs(case, dtype):
    rows, limit, order, norm = SAME_AS_TORCH[case]
    grads = tensors(*rows, dtype=dtype)
    forms = []
    for module in (cliplab, torch.nn.utils):
        once, twice = with_gradients(*grads), with_gradients(*grads)
        size = module.clip_grad_norm_(once, limit, order)
        total = module.get_total_norm([p.grad for p in twice], order)
        module.clip_grads_with_norm_(twice, torch.tensor(limit, dtype=dtype), total)
        forms.append([size, total, *(p.grad for p in once + twice)])
    for ours, theirs in zip(*forms, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    assert forms[0][0].item() == pytest.approx(norm, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("foreach", [None, True, False])
@pytest.mark.parametrize("limit", [0.7, torch.tensor(0.7), torch.tensor(0.7).double()])
def test_limits_may_be_tensors_and_foreach_is_accepted(limit, foreach):
    grads = [torch.randn(7, 5, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    ours, theirs = with_gradients(*grads), with_gradients(*grads)
    cliplab.clip_grad_norm_(ours, limit, foreach=foreach)
    torch.nn.utils.clip_grad_norm_(theirs, limit, foreach=foreach)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))
    cliplab.clip_grad_value_(ours, 0.01, foreach=foreach)
    assert max(p.grad.abs().max().item() for p in ours) == pytest.approx(0.01)


def test_a_limit_of_one_entry_that_needs_a_gradient_is_a_number():
    params = with_gradients(*tensors([3.0, 4.0]))
    cliplab.clip_grad_norm_(params, torch.ones(1, requires_grad=True))
    assert params[0].grad.norm().item() == pytest.approx(1.0)
    assert not params[0].grad.requires_grad


def test_value_clipping_of_what_is_not_finite_is_torchs():
    params = with_gradients(*tensors([INF, -INF, NAN, 0.5]))
    cliplab.clip_grad_value_(params, 1.0)
    assert params[0].grad[[0, 1, 3]].tolist() == [1.0, -1.0, 0.5]
    assert params[0].grad[2].isnan()


@pytest.mark.parametrize("call", [lambda ps: cliplab.clip_grad_norm_(ps, 1.0)])
def test_nothing_to_clip_is_zero_and_an_empty_generator_warns(call):
    for nothing in ([], [nn.Parameter(torch.ones(2))]):
        norm = call(nothing)
        assert norm.dtype == torch.float32
        assert norm.item() == 0.0
    with pytest.warns(UserWarning, match="empty generator"):
        assert call(p for p in []).item() == 0.0


def test_frozen_parameters_with_a_gradient_count():
    params = with_gradients(*tensors([3.0], [4.0]))
    params[0].requires_grad_(False)
    assert cliplab.clip_grad_norm_(params, 1.0).item() == 5.0
    assert params[0].grad.item() == pytest.approx(0.6)


BETTER_THAN_TORCH = {  # norm and gradients after clipping at 1; torch's own answer is wrong
    "fp16 that overflows": (tensors([30000.0, 40000.0], dtype=torch.float16), 50000.0, [0.6, 0.8]),
    "bf16": (tensors([300.0] * 1000, dtype=torch.bfloat16), 300 * math.sqrt(1000), None),
    "1e25": (tensors([3e25, 4e25]), 5e25, [0.6, 0.8]),
    "1e-25": (tensors([3e-25, 4e-25]), 5e-25, [3e-25, 4e-25]),
    "1e200": (tensors([3e200, 4e200], dtype=torch.float64), 5e200, [0.6, 0.8]),
}


@pytest.mark.parametrize("case", BETTER_THAN_TORCH)
def test_norms_that_torch_gets_wrong(case):
    grads, norm, after = BETTER_THAN_TORCH[case]
    ours, theirs = with_gradients(*grads), with_gradients(*grads)
    assert cliplab.clip_grad_norm_(ours, 1.0).item() == pytest.approx(norm, rel=1e-6)
    wrong = torch.nn.utils.clip_grad_norm_(theirs, 1.0).item()
    assert abs(wrong - norm) > 1e-4 * norm or math.isinf(wrong)
    if after is not None:
        assert ours[0].grad.tolist() == pytest.approx(after, rel=1e-2, abs=1e-30)


def test_a_norm_of_bf16_is_kept_in_fp32():
    params = with_gradients(*tensors([3.0, 4.0], dtype=torch.bfloat16))
    assert cliplab.clip_grad_norm_(params, 1.0).dtype == torch.float32
    mixed = with_gradients(torch.ones(3, dtype=torch.bfloat16), torch.ones(6))
    assert cliplab.clip_grad_norm_(mixed, 1.0).item() == 3.0
    assert [p.grad.dtype for p in mixed] == [torch.bfloat16, torch.float32]
    wide = with_gradients(torch.ones(3), torch.ones(6, dtype=torch.float64))
    assert cliplab.clip_grad_norm_(wide, 1.0).dtype == torch.float64


@pytest.mark.parametrize("order", [0, -1.0, -INF, NAN, "fro", "nuc", True, None])
def test_orders_that_are_no_norm_are_refused(order):
    with pytest.raises(ValueError, match="norm_type must be a number > 0 or inf"):
        cliplab.clip_grad_norm_(with_gradients(*tensors([1.0])), 1.0, order)


LIMITED = {
    "max_norm": lambda p, c: cliplab.clip_grad_norm_(p, c),
    "clip_value": lambda p, c: cliplab.clip_grad_value_(p, c),
    "max_norm ": lambda p, c: cliplab.clip_grads_with_norm_(p, c, torch.tensor(1.0)),
    "clip_factor": lambda p, c: cliplab.adaptive_clip_(p, c),
    "eps": lambda p, c: cliplab.adaptive_clip_(p, 0.1, c),
    "clip_norm": lambda p, c: cliplab.clip_by_norm_(p[0].grad, c),
    "clip_norm ": lambda p, c: cliplab.clip_by_global_norm_(p[0].grad, c),
    "limit": lambda p, c: cliplab.clip_activation_grad_(p[0], c),
}


@pytest.mark.parametrize("bad", [-1.0, NAN, True, "1.0", None, torch.tensor(-1.0), torch.ones(2)])
@pytest.mark.parametrize("name", LIMITED)
def test_limits_that_are_no_limit_are_refused_and_change_nothing(name, bad):
    params = with_gradients(*tensors([3.0, 4.0]))
    with pytest.raises(ValueError, match=f"{name.strip()} must be a number >"):
        LIMITED[name](params, bad)
    assert params[0].grad.tolist() == [3.0, 4.0]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_gradients_are_coalesced_measured_and_clipped():
    def gradient():
        at = torch.tensor([[1, 1, 3]])
        values = torch.tensor([[1.0, 2.0], [2.0, 2.0], [0.0, 12.0]])
        return torch.sparse_coo_tensor(at, values, (4, 2))

    weight = nn.Parameter(torch.zeros(4, 2))
    weight.grad = gradient()  # row 1 is stored in two addends: (3, 4)
    assert cliplab.clip_grad_norm_(weight, 6.5).item() == 13.0
    dense = weight.grad.to_dense()
    torch.testing.assert_close(dense[[1, 3]], torch.tensor([[1.5, 2.0], [0.0, 6.0]]))
    weight.grad = gradient()
    cliplab.clip_grad_value_(weight, 3.5)
    assert weight.grad.to_dense()[[1, 3]].tolist() == [[3.0, 3.5], [0.0, 3.5]]
    weight.grad = gradient()
    cliplab.adaptive_clip_(weight, 1.0, eps=6.0)
    torch.testing.assert_close(weight.grad.to_dense()[[1, 3]], torch.tensor([[3.0, 4.0], [0, 6.0]]))
    for clip, expected in [
        (lambda t: cliplab.clip_by_norm_(t, 6.5), [[1.5, 2.0], [0.0, 6.0]]),
        (lambda t: cliplab.clip_by_global_norm_(t, 6.5), [[1.5, 2.0], [0.0, 6.0]]),
        (lambda t: cliplab.clip_by_value_(t, -1.0, 3.5), [[3.0, 3.5], [0.0, 3.5]]),
    ]:
        tensor = gradient()
        clip(tensor)
        torch.testing.assert_close(tensor.to_dense()[[1, 3]], torch.tensor(expected))


def test_complex_gradients_are_clipped_by_magnitude():
    params = with_gradients(torch.tensor([3 + 4j, 0.1j, 0]))
    cliplab.clip_grad_value_(params, 1.0)
    torch.testing.assert_close(params[0].grad, torch.tensor([0.6 + 0.8j, 0.1j, 0]))
    params = with_gradients(torch.tensor([3 + 4j]), torch.tensor([12j]))
    assert cliplab.clip_grad_norm_(params, 1.3).item() == 13.0
    torch.testing.assert_close(params[1].grad, torch.tensor([1.2j]))


def test_a_parameter_given_twice_is_clipped_once_and_an_empty_one_is_no_error():
    params = with_gradients(*tensors([3.0, 4.0], []))
    assert cliplab.clip_grad_norm_(params * 2, 1.0).item() == 5.0
    assert params[0].grad.norm().item() == pytest.approx(1.0)
    assert cliplab.clip_grad_norm_(params, 1.0, INF).item() == pytest.approx(0.8)


def test_what_need_not_be_clipped_is_not_written_to():
    params = with_gradients(*tensors([3.0, 4.0], [1.0]))
    versions = [p.grad._version for p in params]
    cliplab.clip_grad_norm_(params, 100.0)
    cliplab.adaptive_clip_(params, 1e9)
    cliplab.clip_by_global_norm_([p.grad for p in params], 100.0)
    assert [p.grad._version for p in params] == versions


@pytest.mark.parametrize("order", [1.0, 3.0])
def test_other_orders_are_right_where_deepspeed_0_x_sums_wrongly(order):
    params = with_gradients(*tensors([1.0, 2.0], [3.0]))
    norm = cliplab.clip_grad_norm_(params, 100.0, order).item()
    assert norm == pytest.approx((1 + 2**order + 3**order) ** (1 / order))
