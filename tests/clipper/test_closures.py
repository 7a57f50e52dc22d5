"""A closure given to ``step``: its gradients are clipped as soon as they are computed."""

import pytest
import torch
from needs import need
from torch import nn

from cliplab import Clipper, MovingAverage

schedulefree = need("schedulefree", "parity")
peers = need("pytorch_optimizer", "parity")

torch.manual_seed(0)
INPUTS, TARGETS = torch.randn(8, 3), torch.randn(8, 1)


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def loss_of(net, optimizer, size=1.0):
    def closure():
        optimizer.zero_grad()
        loss = size * (net(INPUTS) - TARGETS).square().mean()
        loss.backward()
        return loss

    return closure


OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
    "sgd, fused": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, fused=True),
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.1),
    "adamw, fused": lambda ps: torch.optim.AdamW(ps, lr=0.1, fused=True),
    "adadelta": lambda ps: torch.optim.Adadelta(ps, lr=0.1),
    "adafactor": lambda ps: torch.optim.Adafactor(ps, lr=0.1),
    "adagrad": lambda ps: torch.optim.Adagrad(ps, lr=0.1),
    "adamax": lambda ps: torch.optim.Adamax(ps, lr=0.1),
    "asgd": lambda ps: torch.optim.ASGD(ps, lr=0.1),
    "nadam": lambda ps: torch.optim.NAdam(ps, lr=0.1),
    "radam": lambda ps: torch.optim.RAdam(ps, lr=0.1),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.1),
    "rprop": lambda ps: torch.optim.Rprop(ps, lr=0.1),
    "schedulefree": lambda ps: schedulefree.AdamWScheduleFree(ps, lr=0.1),
    "lion": lambda ps: peers.Lion(ps, lr=0.1),
    "stableadamw": lambda ps: peers.StableAdamW(ps, lr=0.1),
}


def start(optimizer):
    if hasattr(optimizer, "train"):
        optimizer.train()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("keyword", [False, True])
def test_a_closure_is_clipped_like_gradients_that_were_there_before(name, keyword):
    by_closure, before = model(), model()
    optimizers = [OPTIMIZERS[name](list(net.parameters())) for net in (by_closure, before)]
    clippers = [Clipper(net, MovingAverage(0.5, 4, 1)) for net in (by_closure, before)]
    for clipper, optimizer in zip(clippers, optimizers, strict=True):
        start(optimizer)
        clipper.attach(optimizer)
    for _ in range(4):
        closure = loss_of(by_closure, optimizers[0])
        loss = optimizers[0].step(closure=closure) if keyword else optimizers[0].step(closure)
        assert float(loss.detach()) == pytest.approx(
            float(loss_of(before, optimizers[1])().detach())
        )
        optimizers[1].step()
    assert all(
        torch.equal(p, q) for p, q in zip(by_closure.parameters(), before.parameters(), strict=True)
    )
    assert clippers[0].history.factor.tolist() == clippers[1].history.factor.tolist()
    assert len(clippers[0].history) == 4


def test_every_evaluation_of_lbfgs_is_clipped():
    net, plain = model(), model()
    optimizers = [torch.optim.LBFGS(n.parameters(), lr=0.5, max_iter=4) for n in (net, plain)]
    clipper = Clipper(net, 0.1)
    clipper.attach(optimizers[0])

    def by_hand():
        loss = loss_of(plain, optimizers[1])()
        Clipper(plain, 0.1).clip()
        return loss

    for _ in range(3):
        optimizers[0].step(loss_of(net, optimizers[0]))
        optimizers[1].step(by_hand)
    torch.testing.assert_close(list(net.parameters()), list(plain.parameters()))
    state = next(iter(optimizers[0].state.values()))
    assert len(clipper.history) == state["func_evals"] > 3
    assert float(clipper.history.norm_after.max()) <= 0.1 * (1 + 1e-6)


def test_lbfgs_is_not_skipped():
    net = model()
    with pytest.raises(ValueError, match="cannot skip a step of LBFGS"):
        Clipper(net, 1.0, mode="skip").attach(torch.optim.LBFGS(net.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_whose_closure_is_above_the_limit_is_not_taken(name):
    net = model()
    params = list(net.parameters())
    optimizer = OPTIMIZERS[name](params)
    start(optimizer)
    clipper = Clipper(net, 10.0, mode="skip")
    clipper.attach(optimizer)
    optimizer.step(loss_of(net, optimizer))
    weights = [p.detach().clone() for p in params]
    state = {i: dict(optimizer.state[p]) for i, p in enumerate(params)}
    kept = {
        i: {k: v.clone() if torch.is_tensor(v) else v for k, v in own.items()}
        for i, own in state.items()
    }
    loss = optimizer.step(loss_of(net, optimizer, size=1e4))
    assert float(loss.detach()) > 100
    assert clipper.history.skipped.tolist() == [False, True]
    assert all(torch.equal(w, p) for w, p in zip(weights, params, strict=True))
    for i, p in enumerate(params):
        for key, value in kept[i].items():
            now = optimizer.state[p][key]
            assert torch.equal(now, value) if torch.is_tensor(value) else now == value


@pytest.mark.parametrize("name", ["SAM", "LookSAM", "FriendlySAM"])
def test_what_is_known_to_move_before_its_closure_is_not_skipped(name):
    net = model()
    optimizer = getattr(peers, name)(list(net.parameters()), torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match=f"cannot skip a step of {name}, which has moved"):
        Clipper(net, 1e-6, mode="skip").attach(optimizer)
    Clipper(net, 1e-6, mode="skip").attach(optimizer.base_optimizer)


def test_what_turns_out_to_have_moved_before_its_closure_cannot_be_skipped():
    class Early(torch.optim.Optimizer):
        def step(self, closure):
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.add_(1.0)
            return closure()

    net = model()
    optimizer = Early(net.parameters(), {})
    Clipper(net, 1e-6, mode="skip").attach(optimizer)
    with pytest.raises(RuntimeError, match="cannot skip the step: Early moved the weights"):
        optimizer.step(loss_of(net, optimizer))


def test_a_closure_that_fails_is_its_own_error_and_the_next_step_works():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    clipper = Clipper(net, 0.1)
    clipper.attach(optimizer)

    def fails():
        raise KeyError("data")

    with pytest.raises(KeyError, match="data"):
        optimizer.step(fails)
    optimizer.step(loss_of(net, optimizer))
    assert len(clipper.history) == 1


def test_updates_with_a_closure():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    clipper = Clipper(net, 0.25, target="update")
    clipper.attach(optimizer)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.step(loss_of(net, optimizer, size=100.0))
    after = [p.detach() for p in net.parameters()]
    moved = torch.cat([(b - p).flatten() for b, p in zip(before, after, strict=True)])
    assert float(moved.norm()) / 0.5 == pytest.approx(0.25, rel=1e-4)
    assert len(clipper.history) == 1
