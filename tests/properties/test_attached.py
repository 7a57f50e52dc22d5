"""Whatever happens around the steps: attached gives what clipping by hand before each gives."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cliplab import Clipper, Percentile


class Counts(torch.optim.Optimizer):
    """Moves without gradients, counts in its group and may fail midway."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1, "step": 0})
        self.fails = False

    @torch.no_grad()
    def step(self, closure=None):
        if self.fails:
            raise RuntimeError("midway")
        for group in self.param_groups:
            group["step"] += 1
            for p in group["params"]:
                p.mul_(0.99 ** group["step"])
                if p.grad is not None:
                    p.sub_(group["lr"] * p.grad)


class Nested(Counts):
    def step(self, closure=None):
        return super().step(closure)


class Momentum(torch.optim.SGD):
    fails = False

    def step(self, closure=None):
        if self.fails:
            raise RuntimeError("midway")
        return super().step(closure)


def sgd(params, **settings):
    return torch.optim.SGD(params, lr=0.1, momentum=0.9, **settings)


KINDS = {
    "counts": Counts,
    "nested": Nested,
    "momentum": lambda p: Momentum(p, lr=0.1, momentum=0.9),
    "sgd": sgd,
    "fused": lambda p: sgd(p, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
}
SIZES = st.floats(-2, 2).map(lambda e: 10.0**e) | st.just(math.nan)
EVENTS = st.sampled_from(["step"] * 6 + ["fail", "reattach", "schedule", "load", "scaled"])


def by_hand(clipper, optimizer):
    if not clipper.clip().skipped.any():
        optimizer.step()


def with_a_scaler(optimizer, params):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.zeros(()))
    for p in params:
        p.grad *= 1024.0
    scaler.step(optimizer)


@given(
    st.sampled_from(list(KINDS)),
    st.sampled_from(["rescale", "soft", "normalise", "skip"]),
    st.booleans(),
    st.lists(st.tuples(EVENTS, SIZES), min_size=1, max_size=12),
)
def test_attached_is_by_hand(kind, mode, percentile, events):
    policy = Percentile(60.0, window=5) if percentile else 1.0
    ours, theirs = ([nn.Parameter(torch.ones(3)) for _ in range(2)] for _ in range(2))
    first, second = KINDS[kind](ours), KINDS[kind](theirs)
    attached, manual = (Clipper(p, policy, mode=mode, nonfinite="skip") for p in (ours, theirs))
    attached.attach(first)
    for i, (event, size) in enumerate(events):
        generator = torch.Generator().manual_seed(i)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(3, generator=generator) * size
            q.grad = p.grad.clone()
        if event == "reattach":
            attached.detach()
            attached.attach(first)
        elif event == "schedule":
            torch.optim.lr_scheduler.ConstantLR(first, factor=1.0)
        elif event == "load":
            first.load_state_dict(first.state_dict())
        if event == "fail" and hasattr(first, "fails"):
            first.fails = True
            skipped = manual.clip().skipped
            try:
                first.step()
                assert skipped
            except RuntimeError:
                assert not skipped
            first.fails = False
        elif event == "scaled" and math.isfinite(size):
            with_a_scaler(first, ours)
            by_hand(manual, second)
        else:
            first.step()
            by_hand(manual, second)
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert attached.steps == manual.steps == len(attached.history)
    torch.testing.assert_close(
        attached.history.norm_before, manual.history.norm_before, equal_nan=True
    )
    assert torch.equal(attached.history.skipped, manual.history.skipped)
