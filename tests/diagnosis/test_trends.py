"""Norms that grow, because the learning rate falls or for another reason."""

import math

import pytest
import torch
from diagnosing import cosine, found, noisy, record
from torch import nn

from cliplab.clipper import Clipper

STEPS = 800
RATES = cosine(STEPS)
BALANCED = torch.tensor(RATES).div(RATES[0]).clamp(min=0.01) ** -0.5  # 1 to 10


def test_an_idle_threshold_wakes_where_the_rate_falls():
    findings = found(record(noisy(BALANCED, STEPS, 0.1), limit=3.0, lr=RATES))
    finding = findings["norm rises as the rate falls"]
    assert finding.severity == "warning"
    assert finding.evidence["slope"] == pytest.approx(-0.5, abs=0.05)
    assert finding.evidence["clipped_before"] == 0
    assert finding.evidence["clipped_last"] == 1
    assert "AdamC" in finding.advice
    assert "norm trending up" not in findings


def test_a_threshold_that_stays_idle_or_always_acts_is_no_warning():
    for limit in (100.0, 0.5):
        history = record(noisy(BALANCED, STEPS, 0.1), limit=limit, lr=RATES)
        assert found(history)["norm rises as the rate falls"].severity == "info"


@pytest.mark.parametrize(
    ("norms", "rates"),
    [
        (noisy(1.0, STEPS), RATES),
        (noisy(BALANCED**-1, STEPS, 0.1), RATES),  # it falls with the rate
        (noisy(BALANCED**3, STEPS, 0.1), RATES),  # far faster than any balance
        (noisy(BALANCED, STEPS, 0.1), None),
        (noisy(BALANCED, STEPS, 0.1), 0.1),
        (noisy(torch.linspace(0, 3, STEPS).exp(), STEPS, 0.1), RATES),  # in time, all the way
        (noisy(BALANCED, STEPS, 0.1), [0.1 * 0.99**step for step in range(STEPS)]),
    ],
)
def test_other_norms_and_rates_are_not_that(norms, rates):
    assert "norm rises as the rate falls" not in found(record(norms, limit=1e6, lr=rates))


def test_growth_in_time_is_still_called_a_trend_while_the_rate_falls():
    growing = noisy(torch.linspace(0, 3, STEPS).exp(), STEPS, 0.1)
    assert "norm trending up" in found(record(growing, limit=1e6, lr=RATES))


def real(norm, decay, limit, steps=1500):
    """A classifier of three clouds under AdamW and a cosine, with or without normalisation."""
    torch.manual_seed(0)
    layers = [nn.Linear(8, 24, bias=False), norm(24), nn.ReLU(), nn.Linear(24, 24, bias=False)]
    model = nn.Sequential(*layers, norm(24), nn.ReLU(), nn.Linear(24, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=decay)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    clipper, centres = Clipper(model, limit), torch.randn(3, 8)
    clipper.attach(optimizer)
    for _ in range(steps):
        y = torch.randint(3, (32,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(centres[y] + torch.randn(32, 8)), y).backward()
        optimizer.step()
        rates.step()
    return found(clipper)


@pytest.mark.slow
def test_decay_on_normalised_layers_does_it_in_a_real_run():
    plain = lambda width: nn.LayerNorm(width, elementwise_affine=False)  # noqa: E731
    finding = real(plain, 3.0, math.inf)["norm rises as the rate falls"]
    assert -0.5 < finding.evidence["slope"] < -0.1
    assert "norm rises as the rate falls" not in real(plain, 0.0, math.inf)
    assert "norm rises as the rate falls" not in real(lambda width: nn.Identity(), 3.0, math.inf)
