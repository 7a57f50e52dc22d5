"""Clipped twice, after the step, or before ranks are summed: on real gradients."""

import math

import pytest
import torch
from diagnosing import found, noisy, record
from torch import nn

from cliplab.clipper import Clipper
from cliplab.diagnosis import diagnose


def gradients(steps=120, seed=0, ranks=1):
    """Backward passes of a model in training, each rank with data of its own."""
    torch.manual_seed(seed)
    model, draw = nn.Linear(8, 1), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        local = []
        for _ in range(ranks):
            x = torch.randn(4, 8, generator=draw)
            noise = torch.randn(4, 1, generator=draw)
            model.zero_grad()
            (model(x) - x.sum(dim=1, keepdim=True) - noise).square().mean().backward()
            local.append([p.grad.clone() for p in model.parameters()])
        yield model, local
        for p, *grads in zip(model.parameters(), *local, strict=True):
            p.data -= 0.01 * sum(grads) / ranks


def measured(before, limit=2.0, **options):
    """A clipper's history where ``before(model)`` had the gradients first."""
    clipper = None
    for model, (grads,) in gradients():
        clipper = clipper or Clipper(model, limit, **options)
        for p, grad in zip(model.parameters(), grads, strict=True):
            p.grad = grad
        before(model)
        clipper.clip()
    return clipper


@pytest.mark.parametrize("limit", [0.5, 2.0, math.inf])
def test_a_trainers_own_clipping_is_a_wall_of_norms(limit):
    clip = nn.utils.clip_grad_norm_
    finding = found(measured(lambda model: clip(model.parameters(), 3.0), limit))["clipped before"]
    assert finding.evidence["wall"] == pytest.approx(3.0, rel=1e-4)
    assert 0.05 < finding.evidence["share"] < 1
    assert "max_grad_norm" in finding.advice
    assert "inf" not in finding.message


def test_the_wall_is_seen_through_half_precision_and_parts():
    def clip(model):
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        for p in model.parameters():
            p.grad = p.grad.half().float()

    assert "clipped before" in found(measured(clip, scope="tensor"))


def test_norms_after_clipping_and_constant_norms_are_a_wall():
    after = measured(lambda model: None).history.norm_after
    assert "clipped before" in found(record(after, math.inf))
    assert "clipped before" in found(record([3.0] * 100, math.inf))


@pytest.mark.parametrize(
    "norms",
    [
        measured(lambda model: None).history.norm_before,
        noisy(1.0, 400),
        1 + noisy(1e-3, 400),  # hardly any noise
        torch.linspace(2, 1.9, 400),  # no noise at all
        torch.linspace(2, 1.99, 400),
        2 - torch.linspace(-1, 1, 400).square() / 100,  # level at its largest
        torch.cat([torch.full((200,), 1.0), torch.tensor([7.0])]),  # larger ones came through
        torch.zeros(100),
    ],
)
def test_norms_without_a_wall_were_not_clipped_before(norms):
    assert "clipped before" not in found(record(norms))


# --- after the step -------------------------------------------------------------------------------


def stepped(clip_first, **options):
    """The update's norm beside a clipper's own record, by hand, as a log has them."""
    history = None
    for model, (grads,) in gradients(60):
        if history is None:
            clipper = Clipper(model, 1.0)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01, **options)
            history = clipper.history
        for p, grad in zip(model.parameters(), grads, strict=True):
            p.grad = grad.clone()
        old = [p.detach().clone() for p in model.parameters()]
        for act in (clipper.clip, optimizer.step) if clip_first else (optimizer.step, clipper.clip):
            act()
        moved = [p.detach() - q for p, q in zip(model.parameters(), old, strict=True)]
        history.put_update(torch.cat([m.flatten() for m in moved]).norm() / 0.01)
        for p, q in zip(model.parameters(), old, strict=True):
            p.data.copy_(q)
    return found(history)


def test_an_update_as_long_as_if_nothing_were_clipped_is_found():
    finding = stepped(clip_first=False)["clipped after the step"]
    assert finding.severity == "critical"
    assert finding.evidence["update_by_norm"] == pytest.approx(1, rel=1e-3)
    assert finding.evidence["count"] >= 30


def test_clipped_before_the_step_or_under_momentum_it_is_not():
    assert "clipped after the step" not in stepped(clip_first=True)
    assert "clipped after the step" not in stepped(clip_first=True, momentum=0.9)
    assert "clipped after the step" not in stepped(clip_first=False, momentum=0.9)  # not known


# --- ranks ----------------------------------------------------------------------------------------


def ranks(synchronised, steps=80):
    """Histories of two ranks that clip their local gradients, or the mean."""
    clippers = None
    for model, local in gradients(steps, ranks=2):
        clippers = clippers or [Clipper(model, 2.0) for _ in local]
        mean = [sum(pair) / 2 for pair in zip(*local, strict=True)]
        for clipper, grads in zip(clippers, local, strict=True):
            for p, grad in zip(model.parameters(), mean if synchronised else grads, strict=True):
                p.grad = grad.clone()
            clipper.clip()
    return clippers


def test_ranks_that_clip_local_gradients_disagree():
    clippers = ranks(synchronised=False)
    (worst, *_) = diagnose(clippers)
    assert (worst.name, worst.severity) == ("ranks disagree", "critical")
    assert worst.evidence["share"] > 0.9
    assert worst.evidence["ratio"] > 1.05
    assert "ranks disagree" not in found(clippers[0])  # one alone does not show it


def test_ranks_that_clip_the_mean_agree_and_the_first_is_read():
    clippers = ranks(synchronised=True)
    assert diagnose(clippers) == diagnose(clippers[0])
    assert diagnose([clippers[0].history]) == diagnose(clippers[0])


def test_a_gradient_that_is_not_finite_on_one_rank_only_is_no_agreement():
    norms = noisy(1.0, 100)
    other = norms.where(torch.arange(100) % 20 > 0, math.nan)
    both = diagnose((record(norms), record(other)))
    assert "ranks disagree" in {finding.name for finding in both}
    same = diagnose((record(other), record(other)))
    assert "ranks disagree" not in {finding.name for finding in same}


def test_ranks_must_hold_the_same_steps_and_be_histories():
    with pytest.raises(ValueError, match="ranks must hold the same steps, got 0 to 59, 0 to 49"):
        diagnose([record([1.0] * 60), record([1.0] * 50)])
    with pytest.raises(ValueError, match="diagnose needs a History or a Clipper, got 3"):
        diagnose([record([1.0] * 60), 3])
    with pytest.raises(ValueError, match=r"diagnose needs a History or a Clipper, got \[\]"):
        diagnose([])
