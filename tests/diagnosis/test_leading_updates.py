"""Updates that spike before the loss does."""

import pytest
import torch
from diagnosing import found, noisy, record

STEPS, AT = 600, [120, 250, 251, 380, 500]


def series(level, noise, places, height, seed):
    values = noisy(level, STEPS, noise, seed)
    values[places] *= height
    return values


def at(shift):
    return [step + shift for step in AT]


LOSS = series(2.0, 0.05, AT, 1.8, 1)
CALM_LOSS = series(2.0, 0.05, [], 1, 1)
UPDATES = series(1.0, 0.1, at(-3), 4.0, 2)
CALM = series(1.0, 0.1, [], 1, 2)
GRADIENTS = series(0.3, 0.2, at(0), 6.0, 3)  # with the loss: its consequence


def test_updates_that_spike_before_the_loss_are_found():
    finding = found(record(GRADIENTS, updates=UPDATES), loss=LOSS)["update spikes lead the loss"]
    assert finding.evidence["loss_spikes"] == 4  # two steps in a row are one
    assert finding.evidence["led_by_updates"] == 4
    assert finding.evidence["led_by_gradients"] == 0
    assert finding.evidence["steps"] == [120, 250, 380, 500]
    assert all(way in finding.advice for way in ('"update"', "stable_adamw", "update_history"))
    assert "beta2" in finding.advice


@pytest.mark.parametrize(
    ("norms", "updates", "loss"),
    [
        (GRADIENTS, UPDATES, None),
        (GRADIENTS, None, LOSS),
        (GRADIENTS, UPDATES, CALM_LOSS),
        (GRADIENTS, CALM, LOSS),
        (GRADIENTS, series(1.0, 0.1, at(0), 4.0, 2), LOSS),  # a bad batch: all at once
        (GRADIENTS, series(1.0, 0.1, at(3), 4.0, 2), LOSS),
        (series(0.3, 0.2, at(-3), 6.0, 3), UPDATES, LOSS),  # the gradient could have told
        (GRADIENTS, series(1.0, 0.1, range(60, 600, 9), 4.0, 2), LOSS),  # anything follows those
        (GRADIENTS, UPDATES, series(2.0, 0.05, AT[:1], 1.8, 1)),
    ],
)
def test_other_spikes_are_not_that(norms, updates, loss):
    assert "update spikes lead the loss" not in found(record(norms, updates=updates), loss=loss)


def test_losses_and_updates_that_are_not_known_everywhere_shift_nothing():
    loss, updates, holes = LOSS.clone(), UPDATES.clone(), torch.arange(STEPS) % 50 == 7
    loss[holes] = updates[holes] = torch.nan
    finding = found(record(GRADIENTS, updates=updates), loss=loss)["update spikes lead the loss"]
    assert finding.evidence["steps"] == [120, 250, 380, 500]
