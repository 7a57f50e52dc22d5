"""What another policy would have done with the norms of a run."""

import math

import pytest
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab import Clipper, Percentile, RobustSpike, SpikeSkip
from cliplab.history import ClipReport, History

SIZES = [1.0, 1.1, 0.9, 1.0, 50.0, 1.1, math.nan, 1.0, 60.0, 70.0, 1.0, 0.0]


def run(clipper, sizes):
    """Clip gradients of these norms; a part that has none has no gradient."""
    for row in sizes:
        for p, size in zip(clipper.params, row, strict=True):
            p.grad = torch.tensor([size * 0.6, size * 0.8])
        clipper.clip()
    return clipper.history


def zeros(n):
    return [nn.Parameter(torch.zeros(2)) for _ in range(n)]


def equal(one, other):
    for name in (*ClipReport.fields, "effective_lr"):
        ours, theirs = getattr(one, name), getattr(other, name)
        torch.testing.assert_close(ours, theirs, equal_nan=True, msg=name)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        (SpikeSkip(6.0, 8, 3), "skip"),
        (RobustSpike(window=16), "skip"),
        (RobustSpike(window=16), "rescale"),
        (Percentile(50), "soft"),
        (Percentile(50), "normalise"),
        (1.5, "rescale"),
    ],
)
def test_a_replay_of_a_clipper_is_what_it_records(policy, mode, parts):
    """On the same norms, where non-finite steps are skipped."""
    sizes = [[n * (1 + part) for part in range(parts)] for n in SIZES * 3]
    scope = {} if parts == 1 else {"scope": "tensor"}
    own = Clipper(zeros(parts), policy, mode=mode, nonfinite="skip", **scope)
    raw = run(Clipper(zeros(parts), math.inf, nonfinite="skip", **scope), sizes)
    recorded = run(own, sizes)
    assert recorded.clipped.any()
    equal(raw.replay(own), recorded)
    assert raw.replay(own).skipped[6].all()


def test_a_policy_made_for_skipping_skips():
    sizes = [[n] for n in SIZES]
    raw = run(Clipper(zeros(1), math.inf, nonfinite="propagate"), sizes)
    again = raw.replay(SpikeSkip(6.0, 8, 3))
    assert again.skipped.nonzero().flatten().tolist() == [4, 6, 8, 9]
    assert again.factor.tolist() == [float(not skipped) for skipped in again.skipped]
    assert again.norm_after.nan_to_num().tolist() == raw.norm_before.nan_to_num().tolist()


def test_the_clippers_mode_is_replayed():
    history = run(Clipper(zeros(1), math.inf), [[2.0], [0.5]])
    soft = history.replay(Clipper(zeros(1), 2.0, mode="soft"))
    assert soft.factor.tolist() == pytest.approx([0.5, 0.8])
    skipping = history.replay(Clipper(zeros(1), 1.0, mode="skip"))
    assert skipping.skipped.tolist() == [True, False]


def test_the_clipper_itself_is_left_alone():
    clipper = cliplab.create("autoclip", with_gradients([3.0, 4.0]))
    clipper.clip()
    before = str(clipper.state_dict())
    assert clipper.history.replay(clipper).threshold.tolist() == [5.0]
    assert str(clipper.state_dict()) == before


def test_the_total_of_large_parts_does_not_overflow():
    class Total(cliplab.Threshold):
        def step(self, sizes, state, context):
            return context.total_norm.expand_as(sizes), {}

    history = run(Clipper(zeros(2), math.inf, scope="tensor"), [[3e30, 4e30]])
    assert history.replay(Total()).threshold.tolist() == [[pytest.approx(5e30)] * 2]


@pytest.mark.parametrize("policy", ["robust", None, SpikeSkip, [], -1, math.nan, nn.Linear(1, 1)])
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(ValueError, match="threshold must be a number"):
        History(scalar=True).replay(policy)
