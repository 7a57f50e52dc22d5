import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cliplab


def parameters(grads):
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    return params


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
    ours, theirs = parameters(grads), parameters(grads)
    norm = cliplab.clip_grad_norm_(ours, max_norm, order)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, order)
    assert torch.equal(norm, expected)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))


@given(seed=st.integers(0, 1000), limit=st.floats(0, 3))
def test_clip_grad_value_is_torchs(seed, limit):
    grads = [torch.randn(6, generator=torch.Generator().manual_seed(seed))]
    ours, theirs = parameters(grads), parameters(grads)
    cliplab.clip_grad_value_(ours, limit)
    torch.nn.utils.clip_grad_value_(theirs, limit)
    assert torch.equal(ours[0].grad, theirs[0].grad)


@pytest.mark.parametrize("bad", [-1.0, math.nan, True, "1.0", None])
def test_bad_limits_are_refused_and_change_nothing(bad):
    params = parameters([torch.tensor([3.0, 4.0])])
    before = copy.deepcopy(params[0].grad)
    with pytest.raises(ValueError, match="max_norm must be a number"):
        cliplab.clip_grad_norm_(params, bad)
    with pytest.raises(ValueError, match="clip_value must be a number"):
        cliplab.clip_grad_value_(params, bad)
    with pytest.raises(ValueError, match="norm_type must be a number"):
        cliplab.clip_grad_norm_(params, 1.0, norm_type=0)
    assert torch.equal(params[0].grad, before)


def test_error_if_nonfinite_leaves_gradients():
    params = parameters([torch.tensor([math.inf, 1.0])])
    with pytest.raises(RuntimeError, match=r"total norm of order 2\.0 is inf"):
        cliplab.clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert params[0].grad.tolist() == [math.inf, 1.0]


def test_listed_differences_from_torch():
    huge = parameters([torch.tensor([3e25, 4e25])])
    assert cliplab.clip_grad_norm_(huge, 1.0).item() == pytest.approx(5e25)
    assert huge[0].grad.tolist() == pytest.approx([0.6, 0.8])
    twice = parameters([torch.tensor([3.0, 4.0])])
    assert cliplab.clip_grad_norm_(twice * 2, 1.0).item() == 5.0
    assert twice[0].grad.norm().item() == pytest.approx(1.0, rel=1e-5)
    half = parameters([torch.full((1000,), 3000.0, dtype=torch.float16)])
    cliplab.clip_grad_norm_(half, 1.0)
    assert half[0].grad.float().norm().item() == pytest.approx(1.0, rel=1e-2)


def test_generators_single_tensors_and_no_gradients():
    params = parameters([torch.tensor([3.0, 4.0])])
    assert cliplab.clip_grad_norm_((p for p in params), 10.0).item() == 5.0
    assert cliplab.clip_grad_norm_(params[0], 10.0).item() == 5.0
    assert cliplab.clip_grad_norm_([torch.nn.Parameter(torch.zeros(2))], 1.0).item() == 0.0
