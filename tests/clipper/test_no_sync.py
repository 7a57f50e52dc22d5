"""On an accelerator nothing on the path may wait for the device.

There may be no accelerator here: ``checks.LOOK`` is set to False, so that the accelerator's way
is taken on CPU tensors, under a guard that raises wherever a value is looked at.
"""

import math
from collections import deque

import pytest
import torch
from making import ATTACHED, BY_HAND, optimizer_for
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import cliplab
from cliplab import Clipper, MovingAverage, NonFiniteGradientError
from cliplab.clipper import Watch

LOOKS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "unique2",
    "_unique2",
}


class Guard(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in LOOKS:
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


class Arrived:
    def query(self):
        return True

    def synchronize(self):
        return None


@pytest.fixture
def no_sync(monkeypatch):
    monkeypatch.setattr("cliplab.checks.LOOK", False)

    def put(watch, step, bad):
        watch._pending.append((step, bad, Arrived()))

    def refuse(tensor):
        raise AssertionError("tolist waits for the device")

    monkeypatch.setattr(Watch, "put", put)
    monkeypatch.setattr(Watch, "check", lambda watch, wait=False: None)
    monkeypatch.setattr(torch.Tensor, "tolist", refuse)
    return Guard


def model_with_gradients(scale=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    (model(torch.randn(5, 3)).square().mean() * scale).backward()
    return model


@pytest.mark.parametrize("method", BY_HAND)
def test_no_method_looks_at_a_value(no_sync, method):
    model = model_with_gradients()
    clipper = cliplab.create(method, model)
    clipper.clip(loss=torch.tensor(1.0))
    with no_sync():
        for _ in range(3):
            clipper.clip(loss=torch.tensor(1.0))
    assert len(clipper.history) == 4


@pytest.mark.parametrize("method", sorted(ATTACHED - {"stable_adamw"}))  # Adam looks itself
def test_no_method_at_an_optimizer_looks_at_a_value(no_sync, method):
    model = model_with_gradients()
    clipper = cliplab.create(method, model)
    optimizer = optimizer_for(method, model.parameters())
    clipper.attach(optimizer)
    optimizer.step()
    with no_sync():
        for _ in range(3):
            optimizer.step()
    assert len(clipper.history) == 4


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit", "element", "member"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "zero", "propagate"])
@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise", "skip"])
def test_no_scope_mode_or_answer_to_nan_looks_at_a_value(no_sync, scope, nonfinite, mode):
    if (mode == "skip" and scope in ("unit", "element", "member")) or (
        mode in ("soft", "normalise") and scope == "element"
    ):
        pytest.skip("not a combination")
    params = [nn.Parameter(torch.ones(2, 3)) for _ in range(3)]
    for p in params:
        p.grad = torch.ones_like(p)
    clipper = Clipper(params, 0.1, scope=scope, nonfinite=nonfinite, mode=mode)
    clipper.clip()
    with no_sync():
        params[0].grad[0, 0] = math.nan
        clipper.clip()


@pytest.mark.parametrize("scope", ["global", "group", "tensor", "unit", "element"])
def test_thresholds_by_name_look_at_no_value(no_sync, scope):
    model = model_with_gradients()
    clipper = Clipper(model, {"*.bias": 0.1, "0.*": math.inf, "*": 0.2}, scope=scope)
    clipper.clip()
    with no_sync():
        clipper.clip()


@pytest.mark.parametrize("scope", ["global", "tensor", "unit"])
def test_mistakes_are_noticed_without_a_look(no_sync, scope):
    params = [nn.Parameter(torch.ones(2, 3)) for _ in range(3)]
    first, second = Clipper(params, 0.1, scope=scope), Clipper(params, 0.1, scope=scope)
    with no_sync(), pytest.warns(UserWarning, match="no gradient at all"):
        first.clip()
    for p in params:
        p.grad = torch.ones_like(p)
    with no_sync():
        first.clip()
    with no_sync(), pytest.warns(UserWarning, match="clipped twice"):
        second.clip()


@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "zero", "propagate"])
@pytest.mark.parametrize("scaled", [True, False])
def test_no_micro_batch_looks_at_a_value(no_sync, scope, nonfinite, scaled):
    model = model_with_gradients()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    loss = scaler.scale(model(torch.ones(2, 3)).sum())
    clipper = Clipper(model, 0.1, scope=scope, nonfinite=nonfinite)
    with no_sync():
        for factor in (1.0, math.nan):
            with clipper.microbatch(scaler if scaled else None):
                (loss * factor).backward(retain_graph=True)
    assert len(clipper.history) == 2


def test_a_guard_that_never_skips_and_given_gradients_are_not_looked_at(no_sync):
    model = model_with_gradients()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, foreach=True)
    clipper = Clipper(model, 0.1, nonfinite="zero")
    with no_sync():
        with clipper.guard(optimizer):
            optimizer.step()
        clipper.clip(grads={name: torch.ones_like(p) for name, p in model.named_parameters()})
    assert len(clipper.history) == 2


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("mode", ["rescale", "normalise"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "zero", "propagate"])
def test_eps_looks_at_no_value(no_sync, scope, mode, nonfinite):
    model = model_with_gradients()
    clipper = Clipper(model, 0.1, scope=scope, mode=mode, nonfinite=nonfinite, eps=1e-6)
    with no_sync():
        clipper.clip()
        model[0].bias.grad[0] = math.nan
        clipper.clip()


@pytest.mark.parametrize("scope", ["tensor", "unit", "element"])
@pytest.mark.parametrize("nonfinite", ["raise", "zero", "propagate"])
@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise"])
def test_clipping_in_the_backward_pass_looks_at_no_value(no_sync, scope, nonfinite, mode):
    if scope == "element" and (nonfinite == "zero" or mode != "rescale"):
        pytest.skip("not a combination")
    model = model_with_gradients()
    policy = 0.1 if scope == "element" else cliplab.EMA(0.5, warmup=0)
    clipper = Clipper(model, policy, scope=scope, nonfinite=nonfinite, mode=mode)
    loss = model(torch.ones(2, 3)).sum()
    with no_sync(), clipper.clip_in_backward():
        for factor in (1.0, math.nan):
            (loss * factor).backward(retain_graph=True)
    assert len(clipper.history) == 2


def test_the_branch_free_way_gives_the_same_as_the_way_with_looks(monkeypatch):
    def run():
        results = []
        for scope in ("global", "tensor", "unit", "element"):
            for nonfinite in ("skip", "zero", "propagate"):
                for limit, scale in ((0.1, 1.0), (10.0, 1.0), (0.1, math.nan)):
                    model = model_with_gradients()
                    model[0].bias.grad *= scale
                    clipper = Clipper(model, limit, scope=scope, nonfinite=nonfinite)
                    clipper.clip()
                    results += [p.grad.clone() for p in model.parameters()]
                    results.append(clipper.history.factor)
        return results

    looking = run()
    monkeypatch.setattr("cliplab.checks.LOOK", False)
    torch.testing.assert_close(run(), looking, equal_nan=True)


def test_a_fused_optimizer_is_skipped_and_handed_the_factor_without_a_look(no_sync):
    model = model_with_gradients()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    clipper = Clipper(model, MovingAverage(0.5, 3, 1), mode="skip", nonfinite="skip")
    handle = clipper.attach(optimizer)
    optimizer.step()
    with no_sync():
        handle._before(handle._sites[0], optimizer, (), {})
    assert optimizer.found_inf.numel() == 1
    handle.remove()
    assert not hasattr(optimizer, "found_inf")


def test_updates_and_forgotten_steps_are_counted_without_a_look(no_sync):
    model = model_with_gradients()
    clipper = Clipper(model, 0.1, scope="tensor")
    clipper.history._max_bytes = 1
    clipper.clip()
    with no_sync():
        for _ in range(3):
            clipper.clip()
            clipper.history.put_update(torch.tensor(0.5))
    assert clipper.history.first_step == 3


@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "element", "member"])
@pytest.mark.parametrize("nonfinite", ["raise", "zero", "propagate"])
def test_an_update_is_measured_and_held_back_without_a_look(no_sync, scope, nonfinite):
    params = [nn.Parameter(torch.ones(2, 3)) for _ in range(3)]
    optimizer = torch.optim.SGD(params, lr=torch.tensor(0.1), momentum=0.9, fused=True)
    clipper = Clipper(params, 0.1, scope=scope, nonfinite=nonfinite, target="update")
    handle = clipper.attach(optimizer, measure_update=True)
    site = handle._sites[0]
    for rate in (0.1, 0.0):
        optimizer.param_groups[0]["lr"] = torch.tensor(rate)
        for p in params:
            p.grad = torch.ones_like(p)
        with no_sync():
            handle._before(site, optimizer, (optimizer,), {})
        with torch.no_grad():
            for p in params:
                p.sub_(rate * p.grad)
        with no_sync():
            handle._after(site, optimizer, (optimizer,), {})
    moved = 0.1 * clipper.history.norm_after[0].norm()
    assert float(moved) > 0
    assert bool(torch.cat([p.detach().flatten() for p in params]).isfinite().all())


def test_a_flag_that_has_not_arrived_is_not_waited_for():
    class Late:
        waited = False

        def query(self):
            return self.waited

        def synchronize(self):
            self.waited = True

    watch = Watch()
    watch._pending = deque([(3, torch.tensor(False), Late()), (4, torch.tensor(True), Late())])
    watch.check()
    assert len(watch._pending) == 2
    with pytest.raises(NonFiniteGradientError, match="at step 4"):
        watch.check(wait=True)
    watch.check(wait=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", [m.name for m in cliplab.list_methods()])
def test_cuda_never_synchronises(method):
    model = model_with_gradients().cuda()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    clipper = cliplab.create(method, model)
    clipper.clip()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            clipper.clip()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_raises_later_and_names_the_step():
    p = nn.Parameter(torch.zeros(3, device="cuda"))
    clipper = Clipper([p], 1.0)
    p.grad = torch.full_like(p, math.nan)
    clipper.clip()
    with pytest.raises(NonFiniteGradientError, match="step 0"):
        clipper.flush()
