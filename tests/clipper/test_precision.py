"""What half precision, doubles and the largest floats do to sizes, limits and factors."""

import pytest
import torch
from making import with_gradients

from cliplab import EMA, Bounded, Clipper, Percentile


@pytest.mark.parametrize("limit", [1.0, 0.1, 0.02, 0.005, 1e-3])
@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit"])
def test_half_gradients_of_several_parts_keep_the_precision_of_the_factor(scope, limit):
    params = with_gradients([3e4, 4e4], [0.0, 0.0], dtype=torch.float16)
    Clipper([{"params": [p]} for p in params], limit, scope=scope).clip()
    assert params[0].grad.float().norm().item() == pytest.approx(limit, rel=2e-3)


def test_the_total_norm_that_policies_see_does_not_overflow():
    params = with_gradients([3e20, 4e20], [3e20, 0.0])
    report = Clipper(params, EMA(warmup=10), scope="tensor").clip()
    assert report.norm_after.norm().item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("policy", [Percentile(50, window=5), Bounded(Percentile(50, 5)), EMA()])
def test_a_default_dtype_of_double_changes_nothing(policy):
    def run():
        params = with_gradients([3.0, 4.0], dtype=torch.float32)
        clipper = Clipper(params, policy)
        for size in (1.0, 0.5, 2.0, 30.0):
            params[0].grad = torch.tensor([3.0, 4.0], dtype=torch.float32) * size
            clipper.clip()
        return params[0].grad, clipper.history.norm_after, clipper.history.threshold

    expected = run()
    torch.set_default_dtype(torch.float64)
    try:
        found = run()
    finally:
        torch.set_default_dtype(torch.float32)
    assert expected[0].norm() < 150  # the last gradient is clipped
    torch.testing.assert_close(found, expected, rtol=0, atol=0, check_dtype=False)


@pytest.mark.parametrize("policy", [1e39, 1e308, Bounded(1e300, high=1e39)])
def test_a_limit_above_all_floats_is_no_limit(policy):
    params = with_gradients([3e30, 4e30])
    assert Clipper(params, policy).clip().factor.item() == 1.0


def test_a_factor_beyond_fp16_is_the_largest_of_fp16_where_it_is_rounded_to_that(monkeypatch):
    """As on an accelerator, whose scalars of fp32 are rounded before the product."""
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    for dtype, factor in ((torch.float16, 65504.0), (torch.bfloat16, 2.0**20)):
        params = with_gradients([2.0**-20, 0.0], [0.0, 2.0**-20], dtype=dtype)
        Clipper(params, 1.0, scope="tensor", mode="normalise", nonfinite="propagate").clip()
        for p, wanted in zip(params, ([1.0, 0.0], [0.0, 1.0]), strict=True):
            assert p.grad.tolist() == pytest.approx([x * factor / 2**20 for x in wanted], rel=1e-3)
