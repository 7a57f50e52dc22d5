"""TensorFlow's forms against its published rules."""

import math

import pytest
import torch
from torch import nn

import cliplab

INF, NAN = math.inf, math.nan


def tensors(*rows, dtype=torch.float32):
    return [torch.tensor(row, dtype=dtype) for row in rows]


def test_global_norm_leaves_unclipped_gradients_where_tensorflow_moves_them():
    for c in (41, 47, 55, 61, 82, 83):
        limit = torch.tensor(float(c))
        assert limit * (1 / limit) != 1  # TensorFlow's factor for what is within the limit
        for grad in (torch.tensor([1.7, 0.3]), torch.tensor([float(c)])):
            after = grad.clone()
            cliplab.clip_by_global_norm_([after], float(c))
            cliplab.clip_by_norm_(after, float(c))
            assert torch.equal(after, grad)


@pytest.mark.parametrize("bad", [INF, -INF, NAN])
def test_tensorflows_answers_to_what_is_not_finite(bad):
    grads = tensors([bad, 4.0], [1.0])
    norm = cliplab.clip_by_global_norm_(grads, 1.0)
    assert not norm.isfinite()
    assert all(g.isnan().all() for g in grads)
    one = torch.tensor([bad, 4.0])
    cliplab.clip_by_norm_(one, 1.0)
    assert one[0].isnan()
    assert one[1].isnan() if math.isnan(bad) else one[1] == 0


def test_tensorflows_zero_norm_none_and_given_norm():
    grads = [torch.zeros(2), None, torch.zeros(1)]
    assert cliplab.clip_by_global_norm_(grads, 0.0).item() == 0.0
    assert grads[1] is None
    assert grads[0].tolist() == [0.0, 0.0]
    assert cliplab.clip_by_global_norm_([None], 1.0).item() == 0.0
    for given in (10.0, torch.tensor(10.0)):
        grads = tensors([3.0, 4.0])
        assert float(cliplab.clip_by_global_norm_(grads, 5.0, use_norm=given)) == 10.0
        assert grads[0].tolist() == [1.5, 2.0]


@pytest.mark.parametrize("dim", [0, 1, -1, (0, 2), (), (0, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_along_axes(dim, dtype):
    grad = torch.randn(3, 4, 2, dtype=dtype, generator=torch.Generator().manual_seed(0))
    after, dims = grad.clone(), (dim,) if isinstance(dim, int) else dim
    cliplab.clip_by_norm_(after, 0.8, dim)
    norm = grad.square().sum(dims, keepdim=True).sqrt() if dims else grad.abs()
    torch.testing.assert_close(after, grad * 0.8 / norm.clamp(min=0.8))
    assert not torch.equal(after, grad)


def test_axes_that_are_not_there_and_bounds_in_the_wrong_order_are_refused():
    for dim in (2, -3, (0, 5)):
        with pytest.raises(ValueError, match="dim must be axes of a dense tensor"):
            cliplab.clip_by_norm_(torch.ones(2, 2), 1.0, dim)
    with pytest.raises(ValueError, match=r"min must be at most max=0\.0, got 1\.0"):
        cliplab.clip_by_value_(torch.ones(2), 1.0, 0.0)
    for bad in (NAN, True, "1", None):
        with pytest.raises(ValueError, match="max must be a number"):
            cliplab.clip_by_value_(torch.ones(2), 0.0, bad)


def test_weights_can_be_clipped():
    weight = nn.Parameter(torch.tensor([-3.0, 0.5, 4.0]))
    cliplab.clip_by_value_([weight], -1.0, 2.0)
    assert weight.tolist() == [-1.0, 0.5, 2.0]
    assert weight.requires_grad


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_uncoalesced_sparse_tensors_are_clipped_by_tensorflows_names():
    for clip in (
        lambda t: cliplab.clip_by_norm_(t, 1.0),
        lambda t: cliplab.clip_by_global_norm_([t], 1.0),
    ):
        sparse = torch.sparse_coo_tensor([[0, 0, 1]], [30.0, 0.0, 40.0], (3,))
        clip(sparse)
        torch.testing.assert_close(sparse.to_dense(), torch.tensor([0.6, 0.8, 0.0]))
