import functools
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cliplab import clip_activation_grad_
from cliplab.lab.models.cells import lstm_step
from cliplab.lab.models.speech import (
    BiLSTM,
    BiLSTMs,
    _lstm,
    ctc_losses,
    edit_distance,
    greedy_decode,
    log_probs,
    phone_error_rate,
)

LENGTHS = torch.tensor([7, 3, 5])
SHORT = st.lists(st.integers(1, 3), max_size=5)


def batch(seed: int = 0) -> Tensor:
    frames = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(seed))
    return frames * (torch.arange(7) < LENGTHS[:, None])[..., None]


def peer_of(net: BiLSTM, features: int, width: int) -> nn.LSTM:
    """torch's own LSTM with the weights of ours; its gates are ordered i, f, g, o."""
    peer = nn.LSTM(features, width, net.layers, batch_first=True, bidirectional=True)
    i, f, o, g = torch.arange(4 * width).view(4, width)
    order = torch.cat([i, f, g, o])
    with torch.no_grad():
        for layer, direction in itertools.product(range(net.layers), (0, 1)):
            suffix = f"_l{layer}" + "_reverse" * direction
            for theirs, ours in (
                ("weight_ih", "w_in"),
                ("weight_hh", "w_rec"),
                ("bias_ih", "bias"),
            ):
                weight = net.get_parameter(f"{ours}{layer}")[direction].T[order]
                peer.get_parameter(theirs + suffix).copy_(weight.squeeze(1))
            peer.get_parameter("bias_hh" + suffix).zero_()
    return peer


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("limit", [None, float("inf")])
def test_the_lstm_is_torchs_in_outputs_and_gradients(layers: int, limit: float | None) -> None:
    net = BiLSTM(4, 6, 5, layers=layers, seed=1)
    frames = batch().requires_grad_()
    twin = batch().requires_grad_()
    ours = net(frames, LENGTHS, limit)
    packed = nn.utils.rnn.pack_padded_sequence(twin, LENGTHS, True, enforce_sorted=False)
    states, _ = nn.utils.rnn.pad_packed_sequence(peer_of(net, 4, 6)(packed)[0], True)
    theirs = (states @ net.w_out + net.b_out).log_softmax(-1)
    inside = torch.arange(7) < LENGTHS[:, None]
    torch.testing.assert_close(ours[inside], theirs[inside])
    weights = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(2)) * inside[..., None]
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(frames.grad, twin.grad)


def test_what_lies_behind_an_utterance_does_not_matter() -> None:
    net = BiLSTM(4, 6, 5, layers=2, seed=1)
    noisy = batch() + 9 * (torch.arange(7) >= LENGTHS[:, None])[..., None]
    inside = torch.arange(7) < LENGTHS[:, None]
    assert torch.equal(net(batch(), LENGTHS)[inside], net(noisy, LENGTHS)[inside])


def test_members_are_single_networks() -> None:
    ensemble = BiLSTMs(
        lambda seed: BiLSTM(4, 6, 5, layers=2, seed=seed), {"a": 1, "b": None}, [3, 4]
    )
    frames = torch.stack([batch(3), batch(4)])
    together = ensemble.log_probs(frames, LENGTHS.expand(2, 3))
    for member, seed in enumerate([3, 4, 3, 4]):
        alone = BiLSTM(4, 6, 5, layers=2, seed=seed)(batch(seed), LENGTHS)
        torch.testing.assert_close(together[member], alone)


def gradients(limits: list[float] | None, arms: int) -> tuple[list[Tensor], list[Tensor]]:
    """What every member's parameters get, and dL/da before the clamp at every layer and step."""
    net = BiLSTM(4, 6, 5, layers=2, seed=1)
    weights = {
        name: weight.detach().expand(arms, *weight.shape).clone().requires_grad_()
        for name, weight in net.named_parameters()
    }
    seen: list[Tensor] = []
    frames, lengths = batch().expand(arms, 3, 7, 4), LENGTHS.expand(arms, 3)
    own = None if limits is None else torch.tensor(limits)
    output = log_probs(weights, 2, frames, lengths, own, lambda *at: seen.append(at[2]))
    output.square().sum().backward()
    return [weight.grad for weight in weights.values() if weight.grad is not None], seen


def test_every_derivative_inside_bptt_is_clamped_as_clip_activation_grad_does() -> None:
    generator = torch.Generator().manual_seed(0)
    driven = torch.randn(7, 2, 3, 24, generator=generator).requires_grad_()
    twin = driven.detach().clone().requires_grad_()
    w_rec = torch.randn(2, 6, 24, generator=generator)
    limit = 2.0**-3
    before: list[Tensor] = []

    def look(step: int, gradient: Tensor) -> None:
        before.insert(0, gradient)

    _lstm(driven, w_rec, torch.full((2, 1, 1), limit), look).square().sum().backward()
    # What is added to the recurrent part has the derivative that left the clamp.
    assert torch.equal(driven.grad, torch.stack(before).clamp(-limit, limit))
    clamped = driven.grad.abs().flatten(1)
    assert (clamped.amax(1) == limit).all()
    assert (clamped.amin(1) < limit).all()

    hidden = cell = torch.zeros(2, 3, 6)
    states = []
    for drive in twin:
        a = clip_activation_grad_(torch.baddbmm(drive, hidden, w_rec), limit)
        hidden, cell = lstm_step(a, cell)
        states.append(hidden)
    torch.stack(states).square().sum().backward()
    assert torch.equal(driven.grad, twin.grad)


def test_each_member_has_a_limit_of_its_own() -> None:
    limits = [math.inf, 0.02, 0.001]
    together, seen = gradients(limits, 3)
    assert len(seen) == 2 * 7
    assert all(gradient.shape == (2 * 3, 3, 24) for gradient in seen)
    largest = torch.stack([gradient.view(3, -1).abs().amax(1) for gradient in seen]).amax(0)
    assert (largest > torch.tensor([0.0, 0.02, 0.001])).all()  # seen before it was clamped
    for member, limit in enumerate([None, 0.02, 0.001]):
        alone, _ = gradients(None if limit is None else [limit], 1)
        for both, one in zip(together, alone, strict=True):
            torch.testing.assert_close(both[member], one[0])
    first = together[0]
    assert not torch.allclose(first[0], first[1])


def test_ctc_loss_sums_over_all_alignments() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 2, 4, 3, generator=generator, dtype=torch.float64).log_softmax(-1)
    lengths, counts = torch.tensor([[4, 3]]), torch.tensor([[2, 1]])
    phones = torch.tensor([[[1, 1], [2, 0]]])
    expected = []
    for b in range(2):
        wanted = phones[0, b, : counts[0, b]].tolist()
        total = 0.0
        for path in itertools.product(range(3), repeat=int(lengths[0, b])):
            merged = [k for k, _ in itertools.groupby(path) if k]
            if merged == wanted:
                total += float(
                    torch.stack([scores[0, b, t, k] for t, k in enumerate(path)]).sum().exp()
                )
        expected.append(-torch.tensor(total).log() / len(wanted))
    found = ctc_losses(scores, lengths, phones, counts)
    torch.testing.assert_close(found, torch.stack(expected).mean()[None].double())


def test_greedy_decoding_merges_repeats_and_drops_blanks_and_padding() -> None:
    path = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 0, 0, 1, 1, 1]])
    scores = nn.functional.one_hot(path, 3).double()
    assert greedy_decode(scores, torch.tensor([6, 3])) == [[1, 1, 2], []]


@functools.cache
def brute_force(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        brute_force(a[1:], b) + 1,
        brute_force(a, b[1:]) + 1,
        brute_force(a[1:], b[1:]) + (a[0] != b[0]),
    )


@given(SHORT, SHORT)
def test_edit_distance_is_the_least_number_of_edits(a: list[int], b: list[int]) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == brute_force(tuple(a), tuple(b))


def test_phone_error_rate_of_silence_and_of_chatter_is_one() -> None:
    assert phone_error_rate([[1, 2], [3]], [[1, 2], [3]]) == 0
    assert phone_error_rate([[1], [3]], [[1, 2], [3]]) == pytest.approx(1 / 3)
    assert phone_error_rate([[], []], [[1, 2], [3]]) == 1
    assert phone_error_rate([[1] * 20, []], [[1, 2], [3]]) == 1
