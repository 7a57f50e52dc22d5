"""Steps that are dropped or fail midway leave nothing behind; copies and replaced parameters."""

import copy
import math

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab import Clipper

INF, NAN = math.inf, math.nan


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


def test_hidden_gradients_of_a_step_that_raised_are_not_applied_later():
    params = with_gradients([30.0, 40.0], [NAN, 0.1])
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


def test_a_policy_that_raises_leaves_neither_scale_nor_loss_nor_count_behind():
    params = with_gradients([0.0, 0.0])
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


def test_copies_and_handles_attach_once():
    params = with_gradients([3.0, 4.0])
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
