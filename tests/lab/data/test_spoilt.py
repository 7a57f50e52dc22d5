"""Batches with an error in them."""

import pytest
import torch

from cliplab.lab.data.spoilt import spoilt

IMAGES = torch.randn(200, 8, 5), torch.randint(10, (200, 8))
TEXT = torch.randint(30, (200, 8, 6)), torch.randint(30, (200, 8, 6))


def spoil(batches, error, symbols=None):
    generator = torch.Generator().manual_seed(1)
    return spoilt(*batches, error, symbols, symbols or 10, generator)


@pytest.mark.parametrize(("batches", "symbols"), [(IMAGES, None), (TEXT, 30)])
def test_without_an_error_nothing_is_changed(batches, symbols):
    inputs, targets, weights = spoil(batches, {}, symbols)
    assert torch.equal(inputs, batches[0])
    assert torch.equal(targets, batches[1])
    assert torch.equal(weights, torch.ones(200))


def test_a_share_of_the_labels_is_random():
    changed = spoil(IMAGES, {"flip": 0.4})[1] != IMAGES[1]
    assert float(changed.double().mean()) == pytest.approx(0.4 * 0.9, abs=0.04)


def test_bad_batches_are_bad_in_one_way_and_the_first_is_none():
    weights = spoil(IMAGES, {"bad": 0.1, "weight": 30})[2]
    bad = weights == 30
    assert 8 <= int(bad.sum()) <= 35
    assert not bad[0]
    inputs, targets, _ = spoil(IMAGES, {"bad": 0.1, "shuffle": True})
    assert torch.equal(inputs, IMAGES[0])
    assert torch.equal((targets != IMAGES[1]).any(1), bad)
    wild = spoil(IMAGES, {"bad": 0.1, "wild": 30})[0]
    assert torch.equal(wild[bad], 30 * IMAGES[0][bad])
    noise = spoil(TEXT, {"bad": 0.1, "wild": 30}, 30)[0]
    bad = spoil(TEXT, {"bad": 0.1, "weight": 30}, 30)[2] == 30
    assert torch.equal((noise != TEXT[0]).flatten(1).any(1), bad)


def test_batches_repeat_targets_shift_and_inputs_have_a_unit():
    inputs, targets, _ = spoil(IMAGES, {"repeat": 20})
    assert torch.equal(inputs[19], IMAGES[0][0])
    assert torch.equal(targets[20], IMAGES[1][1])
    inputs, targets, _ = spoil(TEXT, {"shift": True}, 30)
    assert torch.equal(inputs, targets)
    assert torch.equal(spoil(IMAGES, {"inputs": 10})[0], 10 * IMAGES[0])
