import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cliplab.lab import Ensemble
from cliplab.lab.models.music import RollLSTM, RollRNN, frame_nll, note_logits

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


@pytest.mark.parametrize("vectorize", [True, False])
def test_members_of_an_ensemble_are_as_if_alone(vectorize: bool) -> None:
    seeds = [0, 1]
    ensemble = Ensemble(model, {"none": None, "clip": 1.0}, seeds, vectorize=vectorize)
    frames, mask = music(5, 2)
    states = ensemble(frames[:, :, :-1])
    logits = note_logits(states, ensemble.w_out, ensemble.bias_out)
    targets = ensemble.for_members(frames[:, :, 1:])
    losses = frame_nll(logits, targets, ensemble.for_members(mask))
    losses.sum().backward()
    for m in range(4):
        seed = seeds[m % 2]
        rnn, own_frames, own_mask = model(seed), frames[m % 2], mask[m % 2]
        loss = loss_of(rnn, rnn(own_frames[:, :-1]), own_frames, own_mask)
        loss.backward()
        torch.testing.assert_close(losses[m], loss)
        for name, p in rnn.named_parameters():
            torch.testing.assert_close(ensemble.get_parameter(name).grad[m], p.grad)
