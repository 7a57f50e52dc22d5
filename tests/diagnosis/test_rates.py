"""How often it clips, when, and whether that is a trouble: made-up records, and real runs."""

import math

import pytest
import torch
from diagnosing import found, noisy, record
from torch import nn

from cliplab.clipper import Clipper
from cliplab.diagnosis import diagnose

# --- at the start only --------------------------------------------------------------------------


def norms_with(beginning: int, steps: int = 400) -> torch.Tensor:
    """Far above 1 in the beginning, then about 0.4."""
    return noisy(torch.where(torch.arange(steps) < beginning, 8.0, 0.4), steps, 0.2)


def test_hard_in_the_first_steps_and_never_after_is_what_a_warm_up_does():
    finding = found(record(norms_with(20)))["clips at the start only"]
    assert finding.severity == "info"
    assert (finding.evidence["early"], finding.evidence["steps"]) == (20, 20)
    assert finding.evidence["late"] == 0
    assert "20 of the first 20 steps (to step 19)" in finding.message
    assert "warm-up" in finding.advice


@pytest.mark.parametrize(
    "norms",
    [
        norms_with(2),
        norms_with(120),  # not a beginning any more
        noisy(0.8, 400),  # one step in five, from first to last
        norms_with(0).where(torch.arange(400) % 13 > 0, 8.0),
        torch.cat([norms_with(20), noisy(0.8, 400)]),  # and again later
        norms_with(20, 45),
    ],
)
def test_what_clips_later_too_does_not_clip_at_the_start_only(norms):
    assert "clips at the start only" not in found(record(norms))


def test_a_real_run_of_large_initial_weights_clips_at_the_start_only():
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    with torch.no_grad():
        model.weight.mul_(30)
    clipper = Clipper(model, 5.0)
    run(model, clipper, torch.optim.SGD(model.parameters(), lr=0.2), steps=400)
    assert "clips at the start only" in found(clipper)


# --- always ---------------------------------------------------------------------------------------


def run(model, clipper, optimizer, steps=300, **attaching):
    """Noisy regression; returns the losses."""
    clipper.attach(optimizer, **attaching)
    draw, losses = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        x = torch.randn(16, 8, generator=draw)
        y = x.sum(dim=1, keepdim=True) + torch.randn(16, 1, generator=draw)
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def tight_run(lr):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    clipper = Clipper(model, 0.05)
    return clipper, run(model, clipper, torch.optim.SGD(model.parameters(), lr=lr))


def test_a_tuned_tight_run_is_no_warning_with_and_without_losses():
    clipper, losses = tight_run(lr=1.0)
    for loss in (None, losses):
        findings = diagnose(clipper, loss=loss)
        assert {finding.severity for finding in findings} == {"info"}
        assert "always clips" in {finding.name for finding in findings}
    assert "The loss falls" in found(clipper, loss=losses)["always clips"].advice
    assert "give the losses" in found(clipper)["always clips"].advice


def test_a_learning_rate_far_too_high_is_seen_in_the_loss_of_a_tight_run():
    clipper, losses = tight_run(lr=100.0)
    finding = found(clipper, loss=losses)["hidden learning rate"]
    assert finding.severity == "warning"
    assert finding.evidence["share"] > 0.9
    assert (
        "The loss does not show that it works" in found(clipper, loss=losses)["always clips"].advice
    )


TIGHT = noisy(5.0, 400)
FALLING = noisy(torch.linspace(3, 1, 400), 400)
STALLED = torch.tensor([1.0, 3.0]).repeat(200)


@pytest.mark.parametrize(
    ("loss", "sign"),
    [
        (STALLED, "has not fallen"),
        (torch.cat([FALLING, noisy(torch.linspace(1, 2.5, 400), 400)]), "was lower before"),
        (torch.cat([torch.tensor([2.0]), noisy(6.0, 399)]), "above the very first"),
        (
            torch.cat([torch.tensor([2.0]), noisy(torch.linspace(9, 5, 399), 399)]),
            "above the very first",
        ),
        (-STALLED, "has not fallen"),
    ],
)
def test_losses_that_do_not_fall_say_that_clipping_hides_something(loss, sign):
    finding = found(record(noisy(5.0, len(loss))), loss=loss)["hidden learning rate"]
    assert sign in finding.message
    assert finding.evidence["share"] == 1


@pytest.mark.parametrize(
    ("norms", "loss"),
    [
        (TIGHT, FALLING),
        (TIGHT, FALLING - 5),
        (TIGHT, noisy(torch.tensor([3.0] + [1.0] * 399), 400)),  # within one step
        (TIGHT, FALLING.where(torch.arange(400) % 3 > 0, math.nan)),
        (TIGHT, torch.full((400,), math.nan)),
        (TIGHT, None),
        (noisy(0.4, 400), noisy(2.0, 400)),  # hardly ever clipped: nothing is hidden
        (noisy(torch.linspace(5, 50, 400), 400), FALLING),  # norms grow, and the loss falls
        (TIGHT[:150], noisy(2.0, 150)),
    ],
)
def test_a_loss_that_falls_or_is_not_known_hides_nothing(norms, loss):
    assert "hidden learning rate" not in found(record(norms), loss=loss)


def test_a_loss_of_later_steps_may_have_fallen_before_them():
    history = record(TIGHT)
    history.first_step = 5000
    assert "hidden learning rate" not in found(history, loss=noisy(2.0, 400))
    rising = noisy(torch.linspace(1, 3, 400), 400)
    assert "hidden learning rate" in found(history, loss=rising)


def test_without_losses_norms_that_grow_behind_a_tight_threshold_are_a_sign():
    growing = noisy(torch.linspace(2, 40, 400), 400)
    finding = found(record(growing))["hidden learning rate"]
    assert finding.evidence["rise"] > 3
    assert "the norm grew" in finding.message
    assert "hidden learning rate" not in found(record(growing, limit=100.0))


@pytest.mark.parametrize(("times", "warns"), [(1000.0, True), (200.0, True), (50.0, False)])
def test_a_threshold_a_hundred_times_below_the_norms_is_out_of_scale(times, warns):
    findings = found(record(noisy(times, 200)))
    assert ("threshold out of scale" in findings) is warns
    assert findings["always clips"].severity == "info"


# --- bands ----------------------------------------------------------------------------------------


def test_a_band_that_raises_a_few_is_not_taken_for_normalising():
    inside = found(record(noisy(1.0, 400), limit=3.0, low=0.6))
    assert not inside
    tight = found(record(noisy(2.9, 400), limit=3.0, low=2.8))
    assert {"always clips", "mostly outside its band"} & set(tight) == {"mostly outside its band"}
    assert found(record(noisy(9.0, 400), limit=3.0, low=2.8))["always clips"].severity == "info"


def test_a_band_without_an_upper_end_never_clips_and_is_not_blamed_for_it():
    history = record(noisy(1.0, 400), limit=math.inf, low=0.8)
    assert 0.1 < float((history.factor > 1).float().mean()) < 0.5
    assert not found(history)
    finding = found(record(noisy(1.0, 400), limit=math.inf, low=2.0))["mostly outside its band"]
    assert finding.evidence["raised"] > 0.9
    assert finding.evidence["lowered"] == 0


def test_all_brought_to_one_limit_is_normalising_by_the_record_alone():
    assert not found(record(noisy(1.0, 400), limit=1.0, low=1.0))
