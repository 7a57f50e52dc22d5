"""Both ways in which a ``GradScaler`` tells an optimizer of scaled gradients."""

import math

import pytest
import torch
from making import with_gradients
from torch import nn

from cliplab import Clipper, Percentile

PASSES_ITSELF = pytest.mark.filterwarnings("ignore:GradScaler is going to stop:FutureWarning")
SCOPES = ["global", "group", "tensor", "unit", "element"]


class Told(torch.optim.Optimizer):
    """Copes with scaled gradients by the attributes that a scaler leaves; not one of torch's."""

    _step_supports_amp_scaling = True

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})
        self.taken = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.take(getattr(self, "grad_scale", None), getattr(self, "found_inf", None))

    def take(self, scale, found):
        if found:
            return
        self.taken += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.float() / (1.0 if scale is None else scale))


class Asks(Told):
    """Is given the scaler, and asks it."""

    @torch.no_grad()
    def step(self, closure=None, grad_scaler=None):
        if grad_scaler is None:
            return self.take(None, None)
        ready = grad_scaler._per_optimizer_states[id(self)]["stage"].name == "READY"
        if ready:
            grad_scaler._check_inf_per_device(self)
        (found,) = grad_scaler._found_inf_per_device(self).values()
        return self.take(grad_scaler._get_scale_async() if ready else None, found)


class Unscales(Told):
    """Is given the scaler, and lets it unscale."""

    @torch.no_grad()
    def step(self, closure=None, grad_scaler=None):
        if grad_scaler is None:
            return self.take(None, None)
        if grad_scaler._per_optimizer_states[id(self)]["stage"].name == "READY":
            grad_scaler.unscale_(self)
        (found,) = grad_scaler._found_inf_per_device(self).values()
        return self.take(None, found)


class OwnScale(Told):
    """Means something else by ``grad_scale``, and copes with no scaler."""

    _step_supports_amp_scaling = False
    grad_scale = 7.0

    @torch.no_grad()
    def step(self, closure=None):
        self.take(None, None)


OPTIMIZERS = {
    "told": Told,
    "asks": Asks,
    "unscales": Unscales,
    "plain": lambda p: torch.optim.SGD(p, lr=0.1),
    "fused": lambda p: torch.optim.SGD(p, lr=0.1, fused=True),
}


def train(make, scale, unscale=False, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = make(model.parameters())
    settings.setdefault("threshold", 0.3)
    clipper = Clipper(model, **settings)
    clipper.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    for step in range(6):
        optimizer.zero_grad()
        size = math.inf if step == 3 else 1.0 + step
        if step == 3 and scale is None:
            continue
        scaler.scale(model(torch.full((4, 3), 0.1 * step)).square().sum() * size).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    history = clipper.history
    taken = ~history.skipped.reshape(len(history), -1).all(1)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return weights, history.norm_before[taken], clipper.policy.state_dict()


@PASSES_ITSELF
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("scope", SCOPES)
def test_scaled_gradients_are_clipped_in_true_units(make, unscale, scope):
    limit = 0.05 if scope == "element" else 0.3
    scaled = train(make, 1024.0, unscale, scope=scope, threshold=limit)
    plain = train(make, None, scope=scope, threshold=limit)
    torch.testing.assert_close(scaled[:2], plain[:2])


@PASSES_ITSELF
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize(
    "settings",
    [{"mode": "skip"}, {"nonfinite": "skip"}, {"mode": "soft"}, {"mode": "normalise"}],
)
def test_scaled_gradients_are_skipped_and_learnt_from_in_true_units(make, settings):
    scaled = train(make, 1024.0, threshold=Percentile(60.0), **settings)
    plain = train(make, None, threshold=Percentile(60.0), **settings)
    torch.testing.assert_close(scaled[:2], plain[:2])
    assert scaled[2]["count"].tolist() == plain[2]["count"].tolist() == [5]


@PASSES_ITSELF
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "propagate"])
def test_a_step_that_a_scaler_drops_is_neither_learnt_from_nor_taken(make, nonfinite):
    params = with_gradients([1.0], weights=[torch.ones(1)])
    optimizer = make(params)
    clipper = Clipper(params, Percentile(50), nonfinite=nonfinite)
    clipper.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.zero_grad()
    scaler.scale((params[0] * math.inf).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert params[0].tolist() == [1.0]
    assert clipper.policy.state["count"].tolist() == [0]


@PASSES_ITSELF
@pytest.mark.parametrize("make", [Told, Asks, OPTIMIZERS["fused"]])
def test_scaled_gradients_of_half_precision_stay_scaled_until_the_step(make):
    params = [nn.Parameter(torch.zeros(2, dtype=torch.float16))]
    optimizer = make(params)
    clipper = Clipper(params, 1e-6, scope="tensor")
    clipper.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    params[0].grad = torch.tensor([3.0, 4.0], dtype=torch.float16)  # 5 / 2**30: below fp16
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert clipper.history.norm_before.flatten().tolist() == pytest.approx([5 / 2**30])
    assert not clipper.history.clipped.any()
    assert params[0].grad.count_nonzero() == (0 if make is OPTIMIZERS["fused"] else 2)


def test_an_attribute_that_only_looks_like_a_scale_is_none():
    params = with_gradients([3.0, 4.0])
    optimizer = OwnScale(params)
    Clipper(params, 1.0).attach(optimizer)
    optimizer.step()
    assert params[0].tolist() == pytest.approx([0.94, 0.92])


@pytest.mark.parametrize("scale", [None, 1024.0, 2.0**-10])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("lends", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_a_factor_above_one_reaches_the_optimizer_right(monkeypatch, scale, size, lends, fused):
    monkeypatch.setattr("cliplab.clipper.fast_step.WORTH", 0 if lends else 10**9)
    params = with_gradients([3.0, 0.0, 4.0], weights=[torch.zeros(3)])
    optimizer = torch.optim.SGD(params, lr=1.0, fused=fused)
    clipper = Clipper(params, 10.0, mode="normalise")
    clipper.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    params[0].grad *= size * (scale or 1.0) / 5
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert params[0].tolist() == pytest.approx([-6.0, 0.0, -8.0], rel=1e-5)
    assert clipper.history.norm_before.item() == pytest.approx(size, rel=1e-5)
    assert clipper.history.factor.item() == pytest.approx(10 / size, rel=1e-5)


@pytest.mark.parametrize("scale", [None, 1024.0])
@pytest.mark.parametrize("lends", [True, False])
def test_the_largest_factor_makes_nothing_infinite(monkeypatch, scale, lends):
    monkeypatch.setattr("cliplab.clipper.fast_step.WORTH", 0 if lends else 10**9)
    params = with_gradients([1e-44, 0.0], weights=[torch.zeros(2)])
    optimizer = torch.optim.SGD(params, lr=1.0, fused=True)
    clipper = Clipper(params, 1e3, mode="normalise")
    clipper.attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    params[0].grad *= scale or 1.0
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert clipper.history.factor.item() == 2.0**126
    assert params[0].tolist() == pytest.approx([-1e-44 * 2.0**126, 0.0], rel=0.05)
