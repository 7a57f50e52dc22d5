"""What the clipping columns of a row mean, against histories written by hand."""

import math

import pytest
import torch
from torch import nn

from cliplab import Clipper, create
from cliplab.history import History
from cliplab.lab.training.ensemble import Ensemble
from cliplab.lab.training.telemetry import member_columns, run_columns

NORMS, LIMITS = [3.0, 1.0, 2.0, 8.0], [2.0, 2.0, 2.0, 4.0]
SEEN = {
    "norm_mean": 3.5,
    "norm_median": 2.5,  # the mean of the middle two
    "norm_p99": 3 + 0.97 * 5,  # at 0.99 x 3 = 2.97 of the ordered norms
    "norm_max": 8.0,
    "clip_fraction": 2 / 4,  # a norm at its limit is not above it
    "excess": (1 + 0 + 0 + 4) / 4,
    "factor_mean": (2 / 3 + 1 + 1 + 1 / 2) / 4,
}


def history_of(sizes, limits, *, scalar, skipped=()):
    """A history of sizes and limits ``[steps][parts]``."""
    history = History(scalar=scalar)
    for step, (size, limit) in enumerate(zip(sizes, limits, strict=True)):
        s, c = torch.tensor(size), torch.tensor(limit)
        factor = torch.where(s > c, c / s, 1.0)
        skip = torch.full_like(s, step in skipped)
        history.append(torch.stack((s, s * factor, c, factor, (s > c).float(), skip)), None)
    return history


def one(norms=NORMS, limits=LIMITS, **how):
    return history_of([[n] for n in norms], [[c] for c in limits], scalar=True, **how)


def test_the_columns_of_a_run_by_hand():
    assert run_columns(one()) == pytest.approx(SEEN)


def test_only_steps_before_a_death_count():
    after = one([*NORMS, 1e9, math.nan], [*LIMITS, 2.0, 2.0])  # of a loss that was not finite
    assert run_columns(after, died_at=4) == run_columns(one())
    assert run_columns(after, died_at=2)["norm_max"] == 3.0


@pytest.mark.parametrize("history", [History(scalar=True), History(), one()])
def test_a_run_that_took_no_step_has_nothing_to_tell(history):
    assert run_columns(history, died_at=0) == dict.fromkeys(SEEN)


def test_a_skipped_step_has_factor_zero_and_counts_as_clipped():
    columns = run_columns(one(skipped=[0, 3]))
    assert columns["factor_mean"] == (1 + 1) / 4
    assert columns["clip_fraction"] == SEEN["clip_fraction"]
    assert columns["excess"] == SEEN["excess"]


def test_without_a_limit_nothing_is_clipped():
    columns = run_columns(one(limits=[math.inf] * 4))
    assert (columns["clip_fraction"], columns["excess"], columns["factor_mean"]) == (0, 0, 1)


def test_a_run_of_several_parts_counts_every_part_and_has_the_norm_of_all():
    history = history_of([[3.0, 4.0], [0.6, 0.8]], [[2.0, 5.0], [2.0, 0.4]], scalar=False)
    columns = run_columns(history)
    assert columns["norm_mean"] == pytest.approx((5 + 1) / 2)
    assert columns["clip_fraction"] == 2 / 4
    assert columns["excess"] == pytest.approx((1 + 0 + 0 + 0.4) / 4)
    assert columns["factor_mean"] == pytest.approx((2 / 3 + 1 + 1 + 1 / 2) / 4)


def test_norms_measured_beside_the_rule_are_those_of_the_row():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    clipper = create("value", [weight], threshold=1.0)
    clipper.clip()
    columns = run_columns(clipper.history, norms=[5.0])
    assert columns["norm_median"] == 5.0
    assert (columns["clip_fraction"], columns["excess"]) == (1.0, 3.0)  # of the largest entry


def test_every_member_is_a_run_and_dies_alone():
    sizes = [[n, 2 * n, 1.0] for n in NORMS]
    limits = [[c, 2 * c, math.inf] for c in LIMITS]
    columns = member_columns(history_of(sizes, limits, scalar=False), torch.tensor([-1, 2, 0]))
    for name, value in SEEN.items():
        assert columns[name][0] == pytest.approx(value), name
    assert columns["norm_max"].tolist()[:2] == [8.0, 6.0]
    assert columns["clip_fraction"].tolist()[:2] == [0.5, 0.5]
    assert columns["excess"][1] == 1.0
    assert all(not column[2].isfinite() for column in columns.values())  # never alive


def test_steps_of_the_members_of_one_run_are_taken_together():
    sizes, limits = [[3.0, 2.0, 9.0], [1.0, 8.0, 9.0]], [[2.0, 2.0, 1.0], [2.0, 4.0, 1.0]]
    history = history_of(sizes, limits, scalar=False)
    together = member_columns(history, torch.tensor([-1, -1, -1]), torch.tensor([[0, 1], [2, 2]]))
    assert {k: v[0].item() for k, v in together.items()} == pytest.approx(SEEN)
    assert together["clip_fraction"].tolist() == [0.5, 1.0]


def test_a_member_has_the_columns_of_its_model_trained_alone():
    seeds, limit = [3, 4], 1.0

    def build(seed):
        torch.manual_seed(seed)
        return nn.Linear(3, 1)

    ensemble = Ensemble(build, {"norm": limit}, seeds)
    alone = [build(seed) for seed in seeds]
    clippers = [Clipper(model, limit) for model in alone]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (ensemble, *alone)]
    for step in range(9):
        x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(step))
        losses = ensemble(x).square().mean((1, 2))
        losses.sum().backward()
        for model, own in zip(alone, x, strict=True):
            model(own).square().mean().backward()
        ensemble.clip()
        ensemble.step(optimizers[0], losses)
        for clipper, optimizer in zip(clippers, optimizers[1:], strict=True):
            clipper.clip()
            optimizer.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
    for row, clipper in zip(ensemble.rows(), clippers, strict=True):
        for name, value in run_columns(clipper.history).items():
            assert row[name] == pytest.approx(value, rel=1e-4), name
        assert 0 < row["clip_fraction"] < 1
