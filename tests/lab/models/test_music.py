import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cliplab.lab import Ensemble
from cliplab.lab.models.music import (
    RollLSTM,
    RollRNN,
    frame_nll,
    note_logits,
    omega,
    state_gradients,
)

NOTES, HIDDEN, BATCH, FRAMES = 5, 4, 3, 6


def music(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Random frames [.., B, T+1, N] and a mask [.., B, T] whose sequences differ in length."""
    generator = torch.Generator().manual_seed(seed)
    frames = (torch.rand(*shape, BATCH, FRAMES + 1, NOTES, generator=generator) < 0.4).double()
    mask = (torch.arange(FRAMES) < torch.tensor([[FRAMES], [FRAMES], [3]])).double()
    return frames, mask.expand(*shape, BATCH, FRAMES)


def model(seed: int) -> RollRNN:
    rnn = RollRNN(NOTES, HIDDEN, seed=seed).double()
    rnn.w_rec.data *= 2  # strong enough a recurrence to matter
    return rnn


def loss_of(rnn: nn.Module, states: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
    logits = note_logits(states, rnn.get_parameter("w_out"), rnn.get_parameter("bias_out"))
    return frame_nll(logits, frames[..., 1:, :], mask)


def nudged(rnn: RollRNN, x: Tensor, nudges: Tensor) -> list[Tensor]:
    """The same network with a number added to every hidden state: dE/dnudge = dE/dh."""
    states = [torch.tanh(x[:, 0] @ rnn.w_in + rnn.bias) + nudges[:, 0]]
    for t in range(1, x.shape[1]):
        before = x[:, t] @ rnn.w_in + rnn.bias + states[-1] @ rnn.w_rec
        states.append(torch.tanh(before) + nudges[:, t])
    return states


def direct_part(rnn: RollRNN, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    states = rnn(frames[:, :-1])
    (direct,) = torch.autograd.grad(loss_of(rnn, states, frames, mask), states)
    return direct, states.detach()


def test_the_rnn_is_torchs() -> None:
    ours, peer = model(0), nn.RNN(NOTES, HIDDEN, batch_first=True).double()
    with torch.no_grad():
        peer.weight_ih_l0.copy_(ours.w_in.T)
        peer.weight_hh_l0.copy_(ours.w_rec.T)
        peer.bias_ih_l0.copy_(ours.bias)
        peer.bias_hh_l0.zero_()
    x = music(1)[0]
    torch.testing.assert_close(ours(x), peer(x)[0])


def test_initial_weights_follow_the_seed_and_the_radius() -> None:
    first, again, other = (RollRNN(88, 200, seed=s) for s in (3, 3, 4))
    assert torch.equal(first.w_rec, again.w_rec)
    assert not torch.equal(first.w_rec, other.w_rec)
    assert 0.85 < torch.linalg.eigvals(first.w_rec.detach()).abs().max() < 1.1
    lstm, twin = RollLSTM(88, 8, seed=3), RollLSTM(88, 8, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(lstm.parameters(), twin.parameters(), strict=True))
    assert lstm(torch.zeros(2, 7, 88)).shape == (2, 7, 8)


@given(st.integers(0, 10_000))
def test_the_loss_is_that_of_independent_coins(seed: int) -> None:
    frames, mask = music(seed)
    logits = torch.randn(
        BATCH, FRAMES, NOTES, generator=torch.Generator().manual_seed(seed), dtype=torch.double
    )
    coins = torch.distributions.Bernoulli(logits=logits)
    per_frame = -coins.log_prob(frames[:, 1:]).sum(-1)[mask.bool()]
    torch.testing.assert_close(frame_nll(logits, frames[:, 1:], mask), per_frame.mean())


@given(st.integers(0, 10_000))
def test_state_gradients_are_autograds(seed: int) -> None:
    rnn, (frames, mask) = model(seed), music(seed)
    nudges = torch.zeros(BATCH, FRAMES, HIDDEN, dtype=torch.double, requires_grad=True)
    states = torch.stack(nudged(rnn, frames[:, :-1], nudges), 1)
    (expected,) = torch.autograd.grad(loss_of(rnn, states, frames, mask), nudges)
    found = state_gradients(*direct_part(rnn, frames, mask), rnn.w_rec)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert not found[2, 3:].any()  # beyond its last frame a sequence has no error


@given(st.integers(0, 10_000))
def test_omega_is_the_papers_sum_over_full_jacobians(seed: int) -> None:
    rnn, (frames, mask) = model(seed), music(seed)
    direct, states = direct_part(rnn, frames, mask)
    signals = state_gradients(direct, states, rnn.w_rec)

    terms = []
    for b in range(BATCH):
        for t in range(FRAMES - 1):
            if not signals[b, t + 1].any():
                continue
            driven = frames[b, t + 1] @ rnn.w_in + rnn.bias
            jacobian = torch.autograd.functional.jacobian(
                lambda h, driven=driven: torch.tanh(driven + h @ rnn.w_rec), states[b, t]
            )
            carried = signals[b, t + 1] @ jacobian
            terms.append((carried.norm() / signals[b, t + 1].norm() - 1) ** 2)
    assert len(terms) == 5 + 5 + 2
    torch.testing.assert_close(omega(rnn.w_rec, states, signals), torch.stack(terms).mean())


@given(st.integers(0, 10_000))
def test_the_gradient_of_omega_is_the_immediate_one(seed: int) -> None:
    rnn, (frames, mask) = model(seed), music(seed)
    direct, states = direct_part(rnn, frames, mask)
    signals = state_gradients(direct, states, rnn.w_rec)
    # finite differences in W_rec alone, the states and the signals held fixed ...
    weights = rnn.w_rec.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: omega(w, states, signals), (weights,))
    # ... also where the states would carry a gradient to every parameter
    value = omega(rnn.w_rec, rnn(frames[:, :-1]), signals.requires_grad_())
    gradients = torch.autograd.grad(value, list(rnn.parameters()), allow_unused=True)
    reached = [
        name
        for (name, _), g in zip(rnn.named_parameters(), gradients, strict=True)
        if g is not None
    ]
    assert reached == ["w_rec"]


def test_a_step_down_omega_brings_the_norms_closer() -> None:
    rnn, (frames, mask) = model(1), music(1)
    rnn.w_rec.data *= 0.2  # signals vanish
    direct, states = direct_part(rnn, frames, mask)
    signals = state_gradients(direct, states, rnn.w_rec)
    value = omega(rnn.w_rec, states, signals)
    value.backward()
    after = omega(rnn.w_rec - 0.01 * rnn.w_rec.grad, states, signals)
    assert after < value


def test_no_signal_no_omega() -> None:
    weights = torch.randn(HIDDEN, HIDDEN, requires_grad=True)
    nothing = torch.zeros(BATCH, FRAMES, HIDDEN)
    value = omega(weights, nothing, nothing)
    assert value == 0
    value.backward()
    assert not weights.grad.any()


@pytest.mark.parametrize("vectorize", [True, False])
def test_members_of_an_ensemble_are_as_if_alone(vectorize: bool) -> None:
    seeds = [0, 1]
    ensemble = Ensemble(model, {"none": None, "clip": 1.0}, seeds, vectorize=vectorize)
    frames, mask = music(5, 2)
    states = ensemble(frames[:, :, :-1])
    logits = note_logits(states, ensemble.w_out, ensemble.bias_out)
    targets = ensemble.for_members(frames[:, :, 1:])
    losses = frame_nll(logits, targets, ensemble.for_members(mask))
    (direct,) = torch.autograd.grad(losses.sum(), states, retain_graph=True)
    values = omega(ensemble.w_rec, states, state_gradients(direct, states, ensemble.w_rec))
    (losses + values).sum().backward()
    for m in range(4):
        seed = seeds[m % 2]
        rnn, own_frames, own_mask = model(seed), frames[m % 2], mask[m % 2]
        own, hidden = direct_part(rnn, own_frames, own_mask)
        loss = loss_of(rnn, rnn(own_frames[:, :-1]), own_frames, own_mask)
        value = omega(rnn.w_rec, hidden, state_gradients(own, hidden, rnn.w_rec))
        (loss + value).backward()
        torch.testing.assert_close(values[m], value)
        for name, p in rnn.named_parameters():
            torch.testing.assert_close(ensemble.get_parameter(name).grad[m], p.grad)
