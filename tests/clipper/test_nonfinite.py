"""Parts that are not finite: zeroed, skipped, raised."""

import math

import pytest
import torch
from making import with_gradients

import cliplab
from cliplab import Clipper

INF, NAN = math.inf, math.nan


def test_raise_is_not_switched_off_by_another_clippers_flag():
    params = with_gradients([0.3, 0.4], [NAN, 1.0])
    optimizer = torch.optim.AdamW(params, 0.1, fused=True)
    Clipper(params[:1], nonfinite="skip").attach(optimizer)
    Clipper(params[1:], nonfinite="raise").attach(optimizer)
    with pytest.raises(cliplab.NonFiniteGradientError):
        optimizer.step()


def test_a_nan_that_appears_after_unscaling_raises():
    params = with_gradients([0.0, 0.0])
    optimizer = torch.optim.AdamW(params, 0.1, fused=True)
    Clipper(params).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(params[0].sum()).backward()
    scaler.unscale_(optimizer)
    params[0].grad[0] = NAN
    with pytest.raises(cliplab.NonFiniteGradientError):
        scaler.step(optimizer)
    assert params[0].tolist() == [1.0, 1.0]


def test_a_nonfinite_part_that_is_zeroed_is_neither_clipped_nor_a_reason_to_skip():
    for bad in (INF, NAN):
        params = with_gradients([bad, 1.0])
        report = Clipper(params, 1.0, mode="skip", nonfinite="zero").clip()
        assert not report.skipped
        assert not report.clipped
        assert params[0].grad.tolist() == [0.0, 0.0]


def test_element_scope_reports_a_skipped_step_as_untouched():
    params = with_gradients([INF, 1.0])
    report = Clipper(params, 0.7, scope="element", nonfinite="skip").clip()
    assert report.skipped
    assert report.factor == 1.0
    assert report.norm_after == INF


@pytest.mark.parametrize("scope", ["tensor", "unit"])
@pytest.mark.parametrize(
    ("nonfinite", "bad", "small"),
    [("zero", [0.0], [1.0]), ("skip", [NAN], [0.25]), ("propagate", [NAN], [1.0])],
)
def test_small_parts_beside_one_that_is_not_finite_are_normalised_or_not(
    scope, nonfinite, bad, small
):
    params = with_gradients([INF], [0.25], [0.0])
    report = Clipper(params, 1.0, scope=scope, mode="normalise", nonfinite=nonfinite).clip()
    assert report.skipped.all() == (nonfinite == "skip")
    found = [p.grad.tolist() for p in params]
    bad = [INF] if nonfinite == "skip" else bad
    assert found[0] == pytest.approx(bad, nan_ok=True)
    assert found[1:] == [small, [0.0]]


def test_a_gradient_that_is_not_finite_is_refused_before_it_is_normalised():
    params = with_gradients([INF, 1.0], [0.25])
    with pytest.raises(cliplab.NonFiniteGradientError, match="step 0"):
        Clipper(params, 1.0, scope="tensor", mode="normalise").clip()
    assert params[1].grad.tolist() == [0.25]
