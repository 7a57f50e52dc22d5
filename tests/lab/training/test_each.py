"""A limit or policy of its own for every member."""

import pytest
import torch
from torch import nn

from cliplab import MovingAverage
from cliplab.lab.training.each import each
from cliplab.lab.training.ensemble import Ensemble


def train(thresholds, seeds, rates, updates=6):
    """Linear models, a batch a run; returns the ensemble."""

    def build(seed):
        torch.manual_seed(seed)
        return nn.Linear(3, 1)

    ensemble = Ensemble(build, {"run": each(thresholds)}, seeds)
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=1.0)
    data = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(updates):
        x = torch.stack([torch.randn(5, 3, generator=g) for g in data])
        losses = ensemble(x).square().mean((1, 2))
        optimizer.zero_grad()
        losses.sum().backward()
        ensemble.clip()
        ensemble.step(optimizer, losses, torch.tensor(rates))
    return ensemble


def test_every_run_is_what_it_would_be_alone():
    thresholds = [0.1, None, MovingAverage(0.5, 4, 2), 0.3]
    seeds, rates = [3, 4, 3, 3], [0.1, 0.2, 0.1, 0.05]
    together = train(thresholds, seeds, rates)
    for m, (threshold, seed, rate) in enumerate(zip(thresholds, seeds, rates, strict=True)):
        alone = train([threshold], [seed], [rate])
        for name, weights in together.weights.items():
            torch.testing.assert_close(weights[m], alone.weights[name][0])
    assert [row["seed"] for row in together.rows()] == seeds


def test_a_number_of_limits_other_than_of_members_is_refused():
    ensemble = Ensemble(lambda seed: nn.Linear(2, 1), {"run": each([1.0, 2.0])}, [1, 2, 3])
    ensemble(torch.ones(3, 1, 2)).sum().backward()
    with pytest.raises(ValueError, match=r"2 limits for 3 members"):
        ensemble.clip()


@pytest.mark.parametrize("wrong", [[], [-1.0], ["x"], [float("nan")]])
def test_what_is_no_limit_is_refused(wrong):
    with pytest.raises(ValueError, match=r"threshold"):
        each(wrong)
