import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cliplab import Clipper, Decay
from cliplab.lab.models.rnn import CharLSTM, LastStepLSTM, TanhRNN
from cliplab.lab.training.ensemble import Ensemble


class TorchLSTM(nn.Module):
    """torch's own kernel, which vmap cannot take."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.lstm, self.readout = nn.LSTM(6, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        return self.readout(self.lstm(x)[0][:, -1])


SEEDS = [3, 4, 5]
ARMS = {"none": None, "norm 0.05": 0.05, "decay": Decay(0.2, alpha=0.8, patience=2)}
MODELS = {
    "tanh": (lambda seed: TanhRNN(6, 8, 4, init="tanh", seed=seed).double(), True),
    "smart": (lambda seed: TanhRNN(6, 20, 4, init="smart", seed=seed).double(), True),
    "sigmoid": (lambda seed: TanhRNN(6, 8, 4, init="sigmoid", seed=seed).double(), True),
    "lstm": (lambda seed: LastStepLSTM(6, 8, 4, seed=seed).double(), True),
    "one by one": (lambda seed: TorchLSTM(seed).double(), False),
}
OPTIMIZERS = {
    "momentum": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "adam": lambda params: torch.optim.Adam(params, lr=0.01),
}


def batch(seed, step):
    generator = torch.Generator().manual_seed(1000 * seed + step)
    x = torch.randn(5, 7, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 4, (5,), generator=generator)


def losses_together(build, vectorize, make_optimizer, steps):
    ensemble = Ensemble(build, ARMS, SEEDS, vectorize=vectorize)
    optimizer = make_optimizer(ensemble.parameters())
    curves = []
    for step in range(steps):
        pairs = [batch(seed, step) for seed in SEEDS]
        x, y = (torch.stack(column) for column in zip(*pairs, strict=True))
        out = ensemble(x)
        targets = ensemble.for_members(y)
        loss = F.cross_entropy(out.flatten(0, 1), targets.flatten(), reduction="none")
        loss = loss.view(targets.shape).mean(1)
        optimizer.zero_grad()
        loss.sum().backward()
        ensemble.clip()
        ensemble.step(optimizer, loss)
        curves.append(loss.detach())
    return torch.stack(curves, dim=1), ensemble


def losses_alone(build, threshold, make_optimizer, seed, steps):
    model = build(seed)
    optimizer = make_optimizer(model.parameters())
    clipper = Clipper(model, math.inf if threshold is None else threshold)
    curve = []
    for step in range(steps):
        x, y = batch(seed, step)
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        clipper.clip()
        optimizer.step()
        curve.append(loss.detach())
    return torch.stack(curve)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_member_has_the_losses_of_the_same_model_trained_alone(model, optimizer):
    build, vectorize = MODELS[model]
    together, ensemble = losses_together(build, vectorize, OPTIMIZERS[optimizer], steps=25)
    assert ensemble.clipper.history.clipped.any()
    for a, threshold in enumerate(ARMS.values()):
        for s, seed in enumerate(SEEDS):
            alone = losses_alone(build, threshold, OPTIMIZERS[optimizer], seed, steps=25)
            member = together[a * len(SEEDS) + s]
            torch.testing.assert_close(member, alone, rtol=1e-9, atol=1e-9)


def test_tanh_rnn_is_torchs_rnn():
    model = TanhRNN(6, 8, 4, init="tanh", seed=1).double()
    twin = nn.RNN(6, 8, batch_first=True).double()
    with torch.no_grad():
        twin.weight_ih_l0.copy_(model.w_in.T)
        twin.weight_hh_l0.copy_(model.w_rec.T)
        twin.bias_ih_l0.copy_(model.bias)
        twin.bias_hh_l0.zero_()
    x, _ = batch(1, 1)
    expected = twin(x)[0][:, -1] @ model.w_out + model.bias_out
    torch.testing.assert_close(model(x), expected)


def test_last_step_lstm_is_torchs_lstm_with_a_forget_bias_of_1():
    model, twin = LastStepLSTM(6, 8, 4, seed=1).double(), TorchLSTM(seed=1).double()
    torch_order = torch.cat([torch.arange(16), torch.arange(24, 32), torch.arange(16, 24)])
    with torch.no_grad():
        assert model.bias.tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16
        twin.lstm.weight_ih_l0.copy_(model.w_in.T[torch_order])
        twin.lstm.weight_hh_l0.copy_(model.w_rec.T[torch_order])
        twin.lstm.bias_ih_l0.copy_(model.bias[torch_order])
        twin.lstm.bias_hh_l0.zero_()
        twin.readout.weight.copy_(model.w_out.T)
        twin.readout.bias.copy_(model.bias_out)
    x, _ = batch(1, 1)
    torch.testing.assert_close(model(x), twin(x))


def test_smart_init_is_sparse_with_spectral_radius_095():
    weight = TanhRNN(6, 50, 4, init="smart", seed=2).w_rec.detach()
    assert ((weight != 0).sum(dim=0) == 15).all()
    assert torch.linalg.eigvals(weight).abs().max().item() == pytest.approx(0.95, rel=1e-4)


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_member_that_diverges_is_frozen_recorded_and_harms_no_other(make_optimizer):
    class Scalar(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([1.0 + seed]))

        def forward(self, x):
            return self.weight * x

    def train(poison):
        ensemble = Ensemble(Scalar, {"a": None, "b": 1.0}, [0, 1])
        optimizer = make_optimizer(ensemble.parameters())
        seen = []
        for step in range(6):
            x = torch.ones(2, 1)
            loss = ensemble(x).square().sum(1)
            if poison and step >= 3:
                loss = loss * torch.tensor([1.0, math.inf, 1.0, 1.0])
            optimizer.zero_grad()
            loss.sum().backward()
            ensemble.clip()
            ensemble.step(optimizer, loss)
            seen.append(ensemble.weight.detach().clone())
        return torch.stack(seen), ensemble

    (clean, _), (poisoned, ensemble) = train(False), train(True)
    others = torch.tensor([0, 2, 3])
    assert torch.equal(clean[:, others], poisoned[:, others])
    assert torch.equal(poisoned[2, 1], poisoned[5, 1])
    assert ensemble.alive.tolist() == [True, False, True, True]
    rows = ensemble.rows(lr=0.5, score=torch.arange(4.0))
    assert [row["died_at"] for row in rows] == [None, 3, None, None]
    assert [row["diverged"] for row in rows] == [False, True, False, False]
    assert [(row["arm"], row["seed"]) for row in rows] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert [row["score"] for row in rows] == [0.0, 1.0, 2.0, 3.0]
    assert all(math.isfinite(row["norm_max"]) for row in rows)


def test_arms_of_a_seed_start_from_the_same_weights():
    ensemble = Ensemble(
        lambda s: CharLSTM(9, 4, seed=s), {"a": None, "b": 1.0}, [7, 8], vectorize=False
    )
    for p in ensemble.parameters():
        assert torch.equal(p[:2], p[2:])
        assert p.numel() == 1 or not torch.equal(p[0], p[1])
    assert ensemble(torch.zeros(2, 3, 5, dtype=torch.long)).shape == (4, 3, 5, 9)


def test_an_empty_ensemble_is_refused():
    with pytest.raises(ValueError, match="needs arms and seeds, got 0 and 1"):
        Ensemble(lambda s: CharLSTM(9, 4, seed=s), {}, [1])


def test_a_history_that_forgot_its_first_steps_still_gives_rows():
    ensemble = Ensemble(lambda seed: nn.Linear(3, 1), {"none": None, "norm 1": 1.0}, [1, 2])
    ensemble.clipper.history._max_bytes = 1  # a block of one step
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.1)
    for _ in range(5):
        losses = ensemble(torch.ones(2, 4, 3)).square().mean((1, 2))
        optimizer.zero_grad()
        losses.sum().backward()
        ensemble.clip()
        ensemble.step(optimizer, losses)
    assert ensemble.clipper.history.first_step > 0
    rows = ensemble.rows()
    assert len(rows) == 4
    assert all(0 <= row["clip_fraction"] <= 1 and row["norm_max"] > 0 for row in rows)


def squares(ensemble, x):
    return ensemble(x).square().flatten(1).mean(1)


def linear(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(3, 2)


def test_data_of_every_member_give_what_each_network_gives_alone():
    for vectorize in (True, False):
        ensemble = Ensemble(
            linear, {"a": None, "b": 1.0}, [1, 2], data="member", vectorize=vectorize
        )
        x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
        expected = torch.stack([ensemble.network(m)(x[m]) for m in range(4)])
        torch.testing.assert_close(ensemble(x), expected)
        assert torch.equal(ensemble.for_members(x), x)


def test_data_for_something_else_are_refused():
    with pytest.raises(ValueError, match="data must be seed or member, got 'arm'"):
        Ensemble(linear, {"a": None}, [1], data="arm")


def test_a_network_is_a_copy_with_its_members_weights_and_the_models_buffers():
    def build(seed):
        model = nn.Sequential(linear(seed))
        model.register_buffer("seen", torch.tensor([float(seed)]))
        return model

    ensemble = Ensemble(build, {"a": None, "b": 1.0}, [7, 8])
    with torch.no_grad():
        for position, p in enumerate(ensemble.parameters()):
            p += torch.arange(4.0).view(4, *[1] * (p.ndim - 1)) + position
    network = ensemble.network(3)
    assert network.seen.tolist() == [8.0]
    for name, stacked in ensemble.weights.items():
        assert torch.equal(network.get_parameter(name), stacked[3])
    with torch.no_grad():
        network.get_parameter("0.weight").zero_()
    assert ensemble.weights["0.weight"][3].abs().sum() > 0


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_a_rate_a_member_is_the_optimizers_own_learning_rate(make):
    rates = torch.tensor([0.1, 0.01, 0.3, 0.02])
    together = Ensemble(linear, {"a": None, "b": 0.5}, [1, 2])
    apart = [Ensemble(linear, {"a": None, "b": 0.5}, [1, 2]) for _ in rates]
    optimizers = [make(together.parameters(), lr=1.0)]
    optimizers += [
        make(one.parameters(), lr=float(lr)) for one, lr in zip(apart, rates, strict=True)
    ]
    x = torch.randn(6, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    for batch_of_seeds in x:
        for one, optimizer in zip([together, *apart], optimizers, strict=True):
            losses = squares(one, batch_of_seeds)
            optimizer.zero_grad()
            losses.sum().backward()
            one.clip()
            one.step(optimizer, losses, rates if one is together else None)
    for m, one in enumerate(apart):
        for p, q in zip(together.parameters(), one.parameters(), strict=True):
            torch.testing.assert_close(p[m], q[m], rtol=1e-4, atol=1e-6)


def test_a_member_that_died_stays_where_it_was_at_any_rate():
    ensemble = Ensemble(linear, {"a": None}, [1, 2])
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=1.0)
    start = [p.detach().clone() for p in ensemble.parameters()]
    losses = squares(ensemble, torch.ones(2, 4, 3)) * torch.tensor([math.nan, 1.0])
    losses.sum().backward()
    ensemble.clip()
    ensemble.step(optimizer, losses, torch.tensor([0.5, 0.5]))
    for p, old in zip(ensemble.parameters(), start, strict=True):
        assert torch.equal(p[0], old[0])
        assert not torch.equal(p[1], old[1])


def test_a_step_takes_a_clip_of_its_own():
    ensemble = Ensemble(linear, {"a": 1.0}, [1])
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=0.1)
    losses = squares(ensemble, torch.ones(1, 4, 3))
    losses.sum().backward()
    with pytest.raises(RuntimeError, match=r"step\(\) before clip\(\)"):
        ensemble.step(optimizer, losses)
    ensemble.clip()
    ensemble.step(optimizer, losses)
    with pytest.raises(RuntimeError, match=r"step\(\) before clip\(\)"):
        ensemble.step(optimizer, losses)
    assert ensemble.steps == 1


@pytest.mark.parametrize("vectorize", [True, False])
def test_members_are_normalised_as_each_is_alone(vectorize):
    arms, rate, x = {"a": None, "b": 0.5, "c": 100.0}, 0.1, torch.ones(2, 4, 3)
    ensemble = Ensemble(linear, arms, [1, 2], vectorize=vectorize, mode="normalise")
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=rate)
    alone = [linear(seed) for _ in arms for seed in (1, 2)]
    for _ in range(3):
        losses = squares(ensemble, x)
        optimizer.zero_grad()
        losses.sum().backward()
        assert not ensemble.clip().clipped[4:].any()
        ensemble.step(optimizer, losses)
        for member, model in enumerate(alone):
            grads = torch.autograd.grad(model(x[0]).square().mean(), list(model.parameters()))
            size = torch.cat([g.flatten() for g in grads]).norm()
            limit = list(arms.values())[member // 2]
            with torch.no_grad():
                for p, g in zip(model.parameters(), grads, strict=True):
                    p -= rate * g * (1.0 if limit is None else limit / size)
    for m, model in enumerate(alone):
        for name, p in model.named_parameters():
            torch.testing.assert_close(ensemble.weights[name][m], p, rtol=1e-4, atol=1e-5)
    assert [row["clip_fraction"] for row in ensemble.rows()][4:] == [0.0, 0.0]


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_dead_member_is_not_normalised_back_to_life(make_optimizer):
    ensemble = Ensemble(linear, {"a": 1.0}, [1, 2], mode="normalise")
    optimizer = make_optimizer(ensemble.parameters())
    seen = []
    for step in range(4):
        poison = torch.tensor([math.inf if step == 1 else 1.0, 1.0])
        losses = squares(ensemble, torch.ones(2, 4, 3)) * poison
        optimizer.zero_grad()
        losses.sum().backward()
        ensemble.clip()
        ensemble.step(optimizer, losses)
        seen.append(ensemble.weights["weight"].detach().clone())
    assert ensemble.alive.tolist() == [False, True]
    assert all(torch.equal(later[0], seen[0][0]) for later in seen[1:])
    assert not torch.equal(seen[3][1], seen[2][1])


def test_an_ensemble_refuses_a_mode_that_members_cannot_have():
    with pytest.raises(ValueError, match='mode "skip" needs scope'):
        Ensemble(linear, {"a": 1.0}, [1], mode="skip")
