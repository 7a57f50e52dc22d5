"""Held-out windows and the losses of language models on them."""

import math

import pytest
import torch
from torch.nn import functional as F

from cliplab.lab.models.rnn import CharLSTM
from cliplab.lab.training.ensemble import Ensemble
from cliplab.lab.training.language import fixed_windows, member_nats, member_scores, nats

VOCAB, SEEDS = 7, [3, 4]
IDS = torch.randint(VOCAB, (200,), generator=torch.Generator().manual_seed(0))


def fixed(seed=7):
    return torch.Generator().manual_seed(seed)


def build(seed):
    return CharLSTM(VOCAB, 5, seed=seed)


@pytest.fixture
def ensemble():
    return Ensemble(build, {"none": None, "norm": 1.0}, SEEDS, vectorize=False)


def test_fixed_windows_are_the_same_again_and_pieces_of_the_text():
    inputs, targets = fixed_windows(IDS, 9, fixed(), 20)
    again = fixed_windows(IDS, 9, fixed(), 20)
    assert torch.equal(inputs, again[0])
    assert torch.equal(targets, again[1])
    assert inputs.shape == targets.shape == (20, 9)
    pieces = {tuple(IDS[start : start + 10].tolist()) for start in range(191)}
    whole = torch.cat([inputs, targets[:, -1:]], 1)
    assert {tuple(row) for row in whole.tolist()} <= pieces


def test_one_generator_draws_other_windows_for_every_part():
    generator = fixed()
    first, second = (fixed_windows(IDS, 9, generator)[0] for _ in range(2))
    assert first.shape == (256, 9)
    assert not torch.equal(first, second)


def test_member_nats_are_the_nats_of_every_network(ensemble):
    parts = [fixed_windows(IDS, 9, fixed(seed), 6) for seed in SEEDS]
    inputs, targets = (torch.stack(x) for x in zip(*parts, strict=True))
    losses = member_nats(ensemble(inputs), ensemble.for_members(targets))
    expected = torch.stack([nats(ensemble.network(m), parts[m % 2]) for m in range(4)])
    torch.testing.assert_close(losses, expected)


def test_nats_are_the_mean_cross_entropy_over_symbols():
    targets = torch.tensor([[0, 1], [2, 0]])
    logits = torch.randn(2, 2, 3, generator=fixed())
    mean = -sum(F.log_softmax(logits[b, t], -1)[targets[b, t]] for b in range(2) for t in range(2))
    torch.testing.assert_close(nats(lambda _: logits, (targets, targets)), mean / 4)
    one_step = member_nats(logits[:, 0], targets[:, 0])  # a class a member, no windows
    torch.testing.assert_close(one_step[0], F.cross_entropy(logits[0, 0], targets[0, 0]))


def test_a_member_that_died_is_not_finite_or_worse_than_chance_scores_chance(ensemble):
    chance, part = math.log(VOCAB), fixed_windows(IDS, 9, fixed(), 30)
    with torch.no_grad():
        for p in ensemble.parameters():
            p.zero_()  # all symbols alike
        bias = ensemble.weights["readout.bias"]
        bias.copy_(torch.bincount(part[1].flatten(), minlength=VOCAB).log().expand_as(bias))
        bias[2] = -3 * bias[2]
        bias[3, 0] = math.nan
    ensemble.alive[1] = False
    scores = member_scores(ensemble, part, chance)
    assert scores[0].item() == pytest.approx(nats(ensemble.network(0), part).item())
    assert scores[0] < chance - 0.01
    assert scores[1:].tolist() == pytest.approx([chance] * 3)
