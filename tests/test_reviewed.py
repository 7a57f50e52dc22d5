"""Defects that a review of the core found, each of which failed before its fix."""

import copy
import math

import pytest
import torch
from torch import nn

import cliplab
from cliplab import EMA, Bounded, Clipper, Fixed, Percentile, Scheduled, Switch

INF, NAN = math.inf, math.nan


def P(*grads, dtype=torch.float32):
    params = [nn.Parameter(torch.ones(len(g), dtype=dtype)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.tensor(g, dtype=dtype)
    return params


@pytest.mark.parametrize("limit", [1.0, 0.1, 0.02, 0.005, 1e-3])
@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit"])
def test_half_gradients_of_several_parts_keep_the_precision_of_the_factor(scope, limit):
    params = P([3e4, 4e4], [0.0, 0.0], dtype=torch.float16)
    Clipper([{"params": [p]} for p in params], limit, scope=scope).clip()
    assert params[0].grad.float().norm().item() == pytest.approx(limit, rel=2e-3)


@pytest.mark.parametrize("nonfinite", ["raise", "zero", "skip", "propagate"])
@pytest.mark.parametrize("extra", [{}, {"dampening": 0.5}, {"nesterov": True}])
def test_momentum_is_not_garbage_when_the_scaler_drops_the_very_first_step(nonfinite, extra):
    junk = [torch.full((1000,), 7e8) for _ in range(50)]
    del junk
    params = [nn.Parameter(torch.ones(1000))]
    optimizer = torch.optim.SGD(params, 0.1, momentum=0.9, fused=True, **extra)
    Clipper(params, 1e9, nonfinite=nonfinite).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for size in (INF, 1.0):
        optimizer.zero_grad()
        scaler.scale((params[0] * size).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    expected = 1 - 0.1 * (1.9 if "nesterov" in extra else 1.0)
    torch.testing.assert_close(params[0].detach(), torch.full((1000,), expected))


def test_raise_is_not_switched_off_by_another_clippers_flag():
    params = P([0.3, 0.4], [NAN, 1.0])
    optimizer = torch.optim.AdamW(params, 0.1, fused=True)
    Clipper(params[:1], nonfinite="skip").attach(optimizer)
    Clipper(params[1:], nonfinite="raise").attach(optimizer)
    with pytest.raises(cliplab.NonFiniteGradientError):
        optimizer.step()


def test_a_nan_that_appears_after_unscaling_raises():
    params = P([0.0, 0.0])
    optimizer = torch.optim.AdamW(params, 0.1, fused=True)
    Clipper(params).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(params[0].sum()).backward()
    scaler.unscale_(optimizer)
    params[0].grad[0] = NAN
    with pytest.raises(cliplab.NonFiniteGradientError):
        scaler.step(optimizer)
    assert params[0].tolist() == [1.0, 1.0]


def test_hidden_gradients_of_a_step_that_raised_are_not_applied_later():
    params = P([30.0, 40.0], [NAN, 0.1])
    optimizer = torch.optim.SGD(params, 1.0)
    Clipper(params, 100.0, nonfinite="skip").attach(optimizer)

    def fail(*_):
        raise RuntimeError("another hook")

    hook = optimizer.register_step_pre_hook(fail)
    with pytest.raises(RuntimeError, match="another hook"):
        optimizer.step()
    hook.remove()
    optimizer.zero_grad()
    params[1].grad = torch.tensor([0.1, 0.1])
    optimizer.step()
    assert params[0].tolist() == [1.0, 1.0]


def test_the_total_norm_that_policies_see_does_not_overflow():
    params = P([3e20, 4e20], [3e20, 0.0])
    report = Clipper(params, EMA(warmup=10), scope="tensor").clip()
    assert report.norm_after.norm().item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("grad", "dtype"), [([3e25, 4e25], torch.float32), ([6e4, 6e4], torch.float16)]
)
def test_activation_clipping_survives_an_explosion(grad, dtype):
    x = torch.ones(2, dtype=dtype, requires_grad=True)
    grad = torch.tensor(grad, dtype=dtype)
    (cliplab.clip_activation_grad_(x * 1, 1.0, norm_type=2.0)).backward(grad)
    assert x.grad.float().norm().item() == pytest.approx(1.0, rel=3e-3)


@pytest.mark.parametrize("policy", [Percentile(50, window=5), Bounded(Percentile(50, 5)), EMA()])
def test_a_default_dtype_of_double_changes_nothing(policy):
    torch.set_default_dtype(torch.float64)
    try:
        clipper = Clipper(P([3.0, 4.0]), policy)
        clipper.clip()
        clipper.clip()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("policy", [1e39, 1e308, Bounded(1e300, high=1e39)])
def test_a_limit_above_all_floats_is_no_limit(policy):
    params = P([3e30, 4e30])
    assert Clipper(params, policy).clip().factor.item() == 1.0


def test_a_policy_that_raises_leaves_neither_scale_nor_loss_nor_count_behind():
    params = P([0.0, 0.0])
    optimizer = torch.optim.SGD(params, 1.0, fused=True)
    clipper = cliplab.create("spike_skip", params)
    clipper.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    clipper.observe(torch.ones(2))
    for wrong in (True, False):
        optimizer.zero_grad()
        scaler.scale((params[0] * torch.tensor([0.03, 0.04])).sum()).backward()
        if wrong:
            with pytest.raises(ValueError, match="loss must be a scalar"):
                scaler.step(optimizer)
        else:
            scaler.step(optimizer)
        scaler.update()
    assert clipper.steps == len(clipper.history) == 1
    assert clipper.history.norm_before.tolist() == pytest.approx([0.05])
    assert params[0].tolist() == pytest.approx([0.97, 0.96])


def test_a_nonfinite_part_that_is_zeroed_is_neither_clipped_nor_a_reason_to_skip():
    for bad in (INF, NAN):
        params = P([bad, 1.0])
        report = Clipper(params, 1.0, mode="skip", nonfinite="zero").clip()
        assert not report.skipped
        assert not report.clipped
        assert params[0].grad.tolist() == [0.0, 0.0]


def test_copies_and_handles_attach_once():
    params = P([3.0, 4.0])
    optimizer = torch.optim.SGD(params, 0.1)
    clipper = Clipper(params)
    first = clipper.attach(optimizer)
    first.remove()
    clipper.attach(optimizer)
    first.remove()
    with pytest.raises(ValueError, match="already attached"):
        clipper.attach(optimizer)
    model, other = copy.deepcopy((params, clipper))
    other.attach(torch.optim.SGD(model, 0.1))


def test_a_parameter_replaced_in_the_optimizer_is_not_scaled_by_the_old_one(monkeypatch):
    monkeypatch.setattr("cliplab.clipper.attachment.WORTH", 0)
    params = P([3.0, 4.0])
    optimizer = torch.optim.SGD(params, 1.0, fused=True)
    Clipper(params, 1.0).attach(optimizer)
    (new,) = P([30.0, 40.0])
    optimizer.param_groups[0]["params"][0] = new
    optimizer.step()
    assert new.tolist() == [-29.0, -39.0]


def test_a_history_of_doubles_that_begins_without_gradients_stays_double():
    params = P([3e200, 4e200], dtype=torch.float64)
    grad, params[0].grad = params[0].grad, None
    clipper = Clipper(params, 1.0)
    clipper.clip()
    params[0].grad = grad
    clipper.clip()
    assert clipper.history.norm_before.tolist() == pytest.approx([0.0, 5e200])


def test_element_scope_reports_a_skipped_step_as_untouched():
    params = P([INF, 1.0])
    report = Clipper(params, 0.7, scope="element", nonfinite="skip").clip()
    assert report.skipped
    assert report.factor == 1.0
    assert report.norm_after == INF


def test_shares_do_not_overflow():
    clipper = Clipper(P([1e20], [1e20]), INF, scope="tensor")
    clipper.clip()
    assert clipper.history.shares.tolist() == [[0.5, 0.5]]


def test_numbers_where_tensors_or_policies_are_usual():
    params = P([3.0, 4.0])
    Clipper(params, Switch([([True], 1.0)])).clip(loss=1.0)
    assert params[0].grad.norm().item() == pytest.approx(1.0)
    Clipper(params, Scheduled(lambda step, lr: torch.tensor([0.5]))).clip()
    assert params[0].grad.norm().item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clipper(None), "expected a module, tensors or groups to clip, got None"),
        (lambda: Clipper(5), "got 5"),
        (lambda: Clipper([{"lr": 1}]), "a group needs its params"),
        (lambda: Clipper([{"params": nn.Linear(1, 1)}]), "a group needs its params"),
        (lambda: Clipper(P([1.0]), torch.tensor(1 + 1j)), "threshold must be a number"),
        (lambda: Clipper(P([1.0])).load_state_dict({"steps": 0, "policy": None}), "got None"),
        (
            lambda: Clipper(P([1.0]), Bounded(Fixed(1.0))).load_state_dict(
                {"steps": 0, "policy": {"policy": 3}}
            ),
            "expected a state, got 3",
        ),
    ],
)
def test_errors_name_what_was_given(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_is_taken_over_whole_or_not_at_all():
    clipper = Clipper(P([1.0]), Percentile(50))
    clipper.clip()
    with pytest.raises(ValueError, match="x"):
        clipper.load_state_dict(
            {"steps": "x", "policy": Clipper(P([1.0]), Percentile(50)).policy.state_dict()}
        )
    assert clipper.policy.state["count"].tolist() == [1]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_uncoalesced_sparse_tensors_are_clipped_by_tensorflows_names():
    for clip in (
        lambda t: cliplab.clip_by_norm_(t, 1.0),
        lambda t: cliplab.clip_by_global_norm_([t], 1.0),
    ):
        sparse = torch.sparse_coo_tensor([[0, 0, 1]], [30.0, 0.0, 40.0], (3,))
        clip(sparse)
        torch.testing.assert_close(sparse.to_dense(), torch.tensor([0.6, 0.8, 0.0]))


def test_sparse_gradients_of_members():
    p = nn.Parameter(torch.zeros(2, 2))
    p.grad = torch.tensor([[3.0, 4.0], [0.0, 0.3]]).to_sparse()
    report = Clipper([p], 1.0, scope="member").clip()
    torch.testing.assert_close(report.norm_before, torch.tensor([5.0, 0.3]))
