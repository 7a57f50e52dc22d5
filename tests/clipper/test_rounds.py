"""One clipper at several optimizers: one norm over all that they step."""

import math

import pytest
import torch
from torch import nn

from cliplab import Clipper, MovingAverage


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def optimizers_of(model, **others):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    muon = torch.optim.Muon(matrices, lr=0.02)
    return muon, torch.optim.AdamW(vectors, lr=0.1, **others)


def fill(model, seed, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = size * torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("others", [{}, {"fused": True}])
def test_muon_and_adamw_have_one_norm(order, others):
    clipped, by_hand = net(), net()
    steps = optimizers_of(clipped, **others), optimizers_of(by_hand, **others)
    clipper, hand = (
        Clipper(clipped, MovingAverage(0.7, 4, 1)),
        Clipper(by_hand, MovingAverage(0.7, 4, 1)),
    )
    clipper.attach(*steps[0])
    for seed in range(5):
        for model in (clipped, by_hand):
            fill(model, seed)
        hand.clip()
        for i in order:
            steps[0][i].step()
            steps[1][i].step()
    assert all(
        torch.equal(p, q) for p, q in zip(clipped.parameters(), by_hand.parameters(), strict=True)
    )
    assert len(clipper.history) == clipper.steps == 5
    assert clipper.history.lr.tolist() == [0.02] * 5
    assert clipper.history.norm_before.tolist() == hand.history.norm_before.tolist()


@pytest.mark.parametrize("others", [{}, {"fused": True}])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_round_is_skipped_as_a_whole(order, others):
    model = net()
    steps = optimizers_of(model, **others)
    clipper = Clipper(model, 50.0, mode="skip", nonfinite="skip")
    clipper.attach(*steps)
    fill(model, 0)
    for i in order:
        steps[i].step()
    for bad in (1e4, math.nan):
        before = [p.detach().clone() for p in model.parameters()]
        fill(model, 1)
        model[0].bias.grad.mul_(bad)
        for i in order:
            steps[i].step()
        assert all(torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True))
    fill(model, 2)
    for i in order:
        steps[i].step()
    assert not any(torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True))
    assert clipper.history.skipped.tolist() == [False, True, True, False]


def test_an_optimizer_that_steps_alone_begins_a_round_each_time():
    model = net()
    muon, adamw = optimizers_of(model)
    clipper = Clipper(model, 0.1)
    clipper.attach(muon, adamw)
    for seed in range(3):
        fill(model, seed)
        muon.step()
    assert len(clipper.history) == 3
    adamw.step()
    assert len(clipper.history) == 3


def test_the_update_of_a_round_is_one():
    model = net()
    optimizers = optimizers_of(model)
    clipper = Clipper(model, 0.5, target="update")
    clipper.attach(*optimizers)
    before = [p.detach().clone() for p in model.parameters()]
    fill(model, 0)
    optimizers[0].step()
    assert len(clipper.history) == 0
    optimizers[1].step()
    rates = [0.02 if p.ndim == 2 else 0.1 for p in model.parameters()]
    decays = [0.1 if p.ndim == 2 else 0.01 for p in model.parameters()]
    update = [
        (b * (1 - rate * decay) - p.detach()) / rate
        for b, p, rate, decay in zip(before, model.parameters(), rates, decays, strict=True)
    ]
    assert float(torch.cat([u.flatten() for u in update]).norm()) == pytest.approx(0.5, rel=1e-3)
    fill(model, 1)
    optimizers[0].step()
    fill(model, 2)
    with pytest.raises(RuntimeError, match="new round begins before a step of AdamW"):
        optimizers[0].step()


def test_a_scaler_unscales_all_first():
    model = net()
    optimizers = optimizers_of(model, fused=True)
    clipper = Clipper(model, 0.1, nonfinite="skip")
    clipper.attach(*optimizers)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

    def backward():
        for optimizer in optimizers:
            optimizer.zero_grad()
        scaler.scale(model(torch.ones(3, 4)).square().sum()).backward()

    backward()
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    size = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert float(clipper.history.norm_before[0]) == pytest.approx(size)
    assert float(clipper.history.norm_after[0]) == pytest.approx(0.1)
    backward()
    with pytest.raises(RuntimeError, match=r"still scaled.*unscale_"):
        scaler.step(optimizers[1])


def test_all_of_the_clippers_parameters_must_be_stepped_by_one():
    model = net()
    muon, adamw = optimizers_of(model)
    with pytest.raises(ValueError, match=r"the optimizer holds only part.*every optimizer"):
        Clipper(model).attach(muon)
    Clipper(model).attach(muon, adamw)
    extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="the optimizers hold only part"):
        Clipper(nn.ModuleList([model, extra])).attach(muon, adamw)


def test_a_closure_belongs_to_one_optimizer():
    model = net()
    muon, adamw = optimizers_of(model)
    Clipper(model).attach(muon, adamw)
    with pytest.raises(RuntimeError, match="closure"):
        adamw.step(lambda: 0.0)


def test_an_optimizer_that_is_gone_is_said_to_be():
    model = net()
    muon, adamw = optimizers_of(model)
    clipper = Clipper(model)
    clipper.attach(muon, adamw)
    del muon
    fill(model, 0)
    with pytest.raises(RuntimeError, match="lost an optimizer"):
        adamw.step()
    clipper.detach()
    adamw.step()


def two():
    nets = nn.Linear(3, 3), nn.Linear(3, 3)
    return nn.ModuleList(nets), *(torch.optim.SGD(n.parameters(), lr=0.5) for n in nets)


def moved_by(before, params):
    return math.sqrt(
        sum(
            float(((b - p.detach()) / 0.5).square().sum())
            for b, p in zip(before, params, strict=True)
        )
    )


def test_new_gradients_between_two_steps_begin_a_new_round():
    """Optimizers that alternate, and those of which a scaler drops one step, are clipped."""
    both, one, other = two()
    clipper = Clipper(both, 0.5)
    clipper.attach(one, other)
    for seed, optimizer in enumerate((one, other, other, one, one, other)):
        fill(both, seed)
        before = [p.detach().clone() for p in both.parameters()]
        optimizer.step()
        assert 0 < moved_by(before, both.parameters()) <= 0.5 * (1 + 1e-5)
    assert len(clipper.history) == 6


def test_an_update_of_half_a_round_is_an_error():
    both, one, other = two()
    Clipper(both, 0.5, target="update").attach(one, other)
    fill(both, 0)
    one.step()
    fill(both, 1)
    with pytest.raises(RuntimeError, match="new round begins before a step of SGD"):
        other.step()


@pytest.mark.parametrize("target", ["gradient", "update"])
def test_gradients_that_change_in_place_within_a_round_are_an_error(target):
    both, one, other = two()
    Clipper(both, 0.5, target=target).attach(one, other)
    fill(both, 0)
    one.step()
    next(iter(other.param_groups[0]["params"])).grad.mul_(0.5)
    with pytest.raises(RuntimeError, match="gradients of SGD changed in place"):
        other.step()
    fill(both, 1)
    one.step()
    other.step()
