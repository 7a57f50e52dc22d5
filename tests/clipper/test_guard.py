"""Clip now, and keep a step that is to be skipped from moving anything."""

import copy
import math

import pytest
import torch
from torch import nn

from cliplab import Clipper

OPTIMIZERS = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.1, weight_decay=0.1),
}


def backward(model, scale=1.0):
    model.zero_grad()
    (model(torch.ones(4, 3)).square().mean() * scale).backward()


def make(kind="sgd"):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = OPTIMIZERS[kind](model.parameters())
    backward(model)
    optimizer.step()
    backward(model)
    return model, optimizer


def snapshot(model, optimizer):
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("given", [True, False])
def test_a_skipped_step_moves_nothing_and_the_gradients_come_back(kind, given):
    model, optimizer = make(kind)
    clipper = Clipper(model, 1e-6, mode="skip")
    before, grads = snapshot(model, optimizer), [p.grad for p in model.parameters()]
    with clipper.guard(optimizer if given else None) as guard:
        assert all(p.grad is None for p in model.parameters())
        optimizer.step()
    assert guard.skipped
    assert guard.report.skipped
    torch.testing.assert_close(snapshot(model, optimizer), before, rtol=0, atol=0)
    assert all(p.grad is g for p, g in zip(model.parameters(), grads, strict=True))


def test_a_step_that_is_taken_is_that_with_clip():
    model, optimizer = make()
    other = copy.deepcopy(model)
    its = OPTIMIZERS["sgd"](other.parameters())
    its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    backward(other)
    with Clipper(model, 0.01).guard() as guard:
        optimizer.step()
    assert Clipper(other, 0.01).clip().norm_before == guard.report.norm_before
    its.step()
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    assert not guard.skipped


def test_only_what_is_told_is_hidden():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clipper = Clipper(model[0], 1e-6, mode="skip")
    backward(model)
    guard = clipper.guard()
    assert model[0].weight.grad is None
    assert model[1].weight.grad is not None
    guard.close()
    guard = clipper.guard(optimizer)
    assert model[0].weight.grad is None
    assert model[1].weight.grad is None
    guard.close()
    guard.close()
    assert model[0].weight.grad is not None


def test_in_a_callback_that_never_closes_the_next_backward_goes_on():
    model, optimizer = make()
    clipper = Clipper(model, 1.0, nonfinite="skip")
    backward(model, math.nan)
    before = snapshot(model, optimizer)
    clipper.guard(optimizer)
    optimizer.step()
    torch.testing.assert_close(snapshot(model, optimizer), before, rtol=0, atol=0)
    backward(model)
    assert not clipper.guard(optimizer).skipped
    optimizer.step()
    assert not torch.equal(before[0]["weight"], model.weight)
    assert clipper.history.skipped.tolist() == [True, False]


def test_a_new_gradient_is_not_replaced_by_the_hidden_one():
    model, _ = make()
    guard = Clipper(model, 1e-6, mode="skip").guard()
    backward(model)
    new = [p.grad for p in model.parameters()]
    guard.close()
    assert all(p.grad is g for p, g in zip(model.parameters(), new, strict=True))


def test_under_a_scaler():
    model, optimizer = make()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    clipper = Clipper(model, 1.0, nonfinite="skip")
    before = snapshot(model, optimizer)
    model.zero_grad()
    scaler.scale(model(torch.ones(4, 3)).sum() * math.inf).backward()
    scaler.unscale_(optimizer)
    with clipper.guard(optimizer):
        scaler.step(optimizer)
    scaler.update()
    torch.testing.assert_close(snapshot(model, optimizer), before, rtol=0, atol=0)
    assert scaler.get_scale() == 32.0


def test_errors():
    model, optimizer = make()
    clipper = Clipper(model, 1.0)
    with pytest.raises(ValueError, match=r"guard takes a torch.optim.Optimizer, got a module"):
        clipper.guard(model)
    assert clipper.steps == 0
    with clipper.attach(optimizer), pytest.raises(RuntimeError, match="clip twice"):
        clipper.guard(optimizer)


def test_it_says_what_it_did():
    model, _ = make()
    told = repr(Clipper(model, 1e-6, mode="skip").guard())
    assert told.startswith("Guard(ClipReport(norm_before=")
    assert "gradients hidden" in told
