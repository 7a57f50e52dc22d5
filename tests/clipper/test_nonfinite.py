"""Parts that are not finite: zeroed, skipped, raised."""

import math

import pytest
import torch
from making import with_gradients
from torch import nn

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


# --- what the error says --------------------------------------------------------------------------


def said(params, scope="global", **options):
    with pytest.raises(cliplab.NonFiniteGradientError) as error:
        Clipper(params, scope=scope, **options).clip()
    return str(error.value)


def layers(*bad, n=4):
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(n)])
    for i, p in enumerate(model.parameters()):
        p.grad = torch.ones_like(p)
        if i < len(bad):
            p.grad.view(-1)[-1] = bad[i]
    return model


@pytest.mark.parametrize(
    ("scope", "what"),
    [
        ("global", "norm is nan"),
        ("group", "norm of group 0 is nan"),
        ("tensor", "norm of 0.bias is nan"),
        ("unit", "norm of 0.bias[0] is nan"),
        ("element", "norm is nan"),
    ],
)
def test_the_error_names_the_tensors_that_are_not_finite(scope, what):
    told = said(layers(1.0, NAN, INF), scope)
    assert told == f"gradient {what} at step 0: nan in 0.bias; inf in 1.weight (2 of 8 tensors)"


def test_of_many_tensors_five_are_named():
    assert said(layers(INF, NAN, INF, -INF, NAN, INF, NAN)) == (
        "gradient norm is nan at step 0: nan in 0.bias, 2.weight; inf in 0.weight, 1.weight, 1.bias"
        " and 2 more (7 of 8 tensors)"
    )


def test_tensors_without_a_name_are_told_by_number_and_shape():
    params = with_gradients([1.0], [[1.0, INF]])
    assert said(params) == (
        "gradient norm is inf at step 0: inf in tensor 1 of shape (1, 2) (1 of 2 tensors)"
    )


@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_finite_tensors_whose_norm_overflows_are_told_apart(scope):
    told = said(with_gradients([3e38, 3e38]), scope)
    assert "is inf at step 0: all tensors are finite, but the norm overflows" in told


def test_names_are_those_without_wrappers_and_the_step_is_the_one_that_failed():
    model = nn.DataParallel(layers())
    clipper = Clipper(model)
    clipper.clip()
    model.module[3].bias.grad[0] = NAN
    model.module[0].weight.grad = None
    with pytest.raises(cliplab.NonFiniteGradientError, match=r"step 1: nan in 3.bias .1 of 8"):
        clipper.clip()


def test_stored_entries_of_a_sparse_gradient_are_looked_at():
    embed = nn.Embedding(5, 2, sparse=True)
    embed(torch.tensor([1, 1, 3])).sum().mul(INF).backward()
    assert "inf in weight (1 of 1 tensors)" in said(embed)
