"""The fast step is the general step: what it leaves out is work, not meaning."""

import math
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cliplab import EMA, Bounded, Clipper, Decay, Fixed, Percentile, TargetRate
from cliplab.clipper import fast_step
from cliplab.history import ClipReport

POLICIES = [
    lambda: Fixed(1.0),
    lambda: Fixed(0.0),
    lambda: Fixed(math.inf),
    lambda: Decay(2.0, patience=2),
    lambda: EMA(),
    lambda: Percentile(40),
    lambda: TargetRate(0.3),
    lambda: Bounded(EMA(), 0.1, 0.9),
]
SIZES = st.floats(2**-100, 2**100, width=32) | st.sampled_from([0.0, 1.0, math.nan, math.inf])
STREAMS = st.lists(SIZES | st.none(), min_size=1, max_size=30)


def general(*args, **options):
    with mock.patch.object(fast_step, "serves", return_value=False):
        return Clipper(*args, **options)


def weights():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((2, 3), (4,))]


@pytest.mark.filterwarnings("ignore:there is no gradient at all", "ignore:a threshold of 0")
@given(STREAMS, st.sampled_from(POLICIES), st.sampled_from(["skip", "zero", "propagate"]))
def test_a_fast_step_does_and_records_what_the_general_one_does(stream, make, nonfinite):
    arms = []
    for build in (Clipper, general):
        params = weights()
        clipper = build(params, make(), nonfinite=nonfinite)
        reports = []
        for size in stream:
            for p in params:
                p.grad = None if size is None else p.detach() * size
            report = clipper.clip()
            reports += [getattr(report, name) for name in ClipReport.fields if name != "norm_after"]
            reports += [p.grad for p in params if p.grad is not None]
        arms.append((clipper, reports))
    (fast, its_reports), (slow, reports) = arms
    assert fast._respond is fast_step.respond_to_one
    assert slow._respond is not fast_step.respond_to_one
    torch.testing.assert_close(its_reports, reports, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(fast.policy.state, slow.policy.state, rtol=0, atol=0)
    for name in ("size", "limit", "factor", "clipped", "skipped"):
        same = (getattr(history.columns, name) for history in (fast.history, slow.history))
        torch.testing.assert_close(*same, rtol=0, atol=0, equal_nan=True)
    after = (history.norm_after for history in (fast.history, slow.history))
    torch.testing.assert_close(*after, rtol=2**-22, atol=1e-44, equal_nan=True)  # rounded once less
    assert fast.steps == slow.steps == len(stream)


@pytest.mark.parametrize(
    ("options", "fast"),
    [
        ({}, True),
        ({"scope": "group"}, True),
        ({"nonfinite": "zero"}, True),
        ({"mode": "soft"}, False),
        ({"mode": "normalise"}, False),
        ({"mode": "skip"}, False),
        ({"scope": "element"}, False),
        ({"scope": "tensor"}, False),
        ({"scope": "unit"}, False),
    ],
)
def test_which_clippers_are_fast(options, fast):
    clipper = Clipper(weights(), 1.0, **options)
    assert (clipper._respond is fast_step.respond_to_one) == fast
    double = Clipper([nn.Parameter(torch.zeros(2, dtype=torch.float64))], 1.0, **options)
    assert double._respond is not fast_step.respond_to_one
