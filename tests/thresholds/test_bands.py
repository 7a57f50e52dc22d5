"""Limits on both sides: what is raised, what is lowered, and what goes with them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import with_gradients
from torch import nn

import cliplab
from cliplab import AdaNorm, AfterWarmup, Band, Bounded, Clipper, Switch, Threshold
from cliplab.thresholds import respond
from cliplab.thresholds.response import on_both_sides

LARGEST = 2.0**126
INF, NAN = math.inf, math.nan


class Between(Threshold):
    """The same band at every step."""

    band = True

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def step(self, sizes, state, context):
        return Band(torch.full_like(sizes, self.low), torch.full_like(sizes, self.high)), {}


def band(low, high, dtype=torch.float32):
    return Band(torch.tensor(low, dtype=dtype), torch.tensor(high, dtype=dtype))


SIZES = st.lists(st.floats(2.0**-60, 2.0**60, width=32), min_size=1, max_size=5)
LIMITS = st.floats(2.0**-60, 2.0**60, width=32)


@given(SIZES, LIMITS, LIMITS)
def test_every_size_ends_in_the_band(sizes, first, second):
    low, high = sorted((first, second))
    sizes = torch.tensor(sizes)
    step = respond(sizes, band([low] * len(sizes), [high] * len(sizes)))
    inside = (sizes >= low) & (sizes <= high)
    assert torch.equal(step.factor == 1, inside)
    assert torch.equal(step.after[inside], sizes[inside])
    assert torch.equal(step.clipped.bool(), sizes > high)
    torch.testing.assert_close(step.after, sizes.clamp(low, high), rtol=2**-22, atol=0)
    in_force = torch.where(sizes < low, low, high).to(sizes)
    assert torch.equal(step.limit, in_force)
    assert not step.skipped.any()


def test_zeros_infinite_ends_and_a_low_above_the_high():
    sizes = torch.tensor([0.0, 1.0, 1.0, 1.0, 5.0, 2.0, 1.0])
    low = [3.0, INF, NAN, 0.0, 9.0, 3.0, 3.0]
    high = [4.0, INF, INF, INF, 4.0, 1.0, 2.0]
    step = respond(sizes, band(low, high))
    assert step.after.tolist() == [0.0, 1.0, 1.0, 1.0, 4.0, 1.0, 3.0]
    assert step.limit.tolist() == [4.0, INF, INF, INF, 4.0, 1.0, 3.0]
    assert step.clipped.tolist() == [0, 0, 0, 0, 1, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_meets_a_factor_above_the_largest(dtype):
    sizes = torch.tensor([1e-40, 1e-38], dtype=dtype)
    step = respond(sizes, band([3e38, 3e38], [INF, INF], dtype))
    assert step.factor.tolist() == [LARGEST, LARGEST]
    assert step.after.isfinite().all()
    assert {column.dtype for column in step} == {dtype}


@pytest.mark.parametrize(
    ("nonfinite", "factors", "skipped"),
    [
        ("leave", [0.5, 2.0, 1.0, 1.0], 0),
        ("skip", [1.0, 1.0, 1.0, 1.0], 1),
        ("zero", [0.5, 2.0, 0.0, 0.0], 0),
        ("propagate", [0.5, 2.0, 0.0, NAN], 0),
    ],
)
def test_what_is_not_finite_is_answered_as_without_a_band(nonfinite, factors, skipped):
    sizes = torch.tensor([4.0, 0.5, INF, NAN])
    limits = band([1.0] * 4, [2.0] * 4)
    step = respond(sizes, limits, sizes.isfinite(), "rescale", nonfinite)
    torch.testing.assert_close(step.factor, torch.tensor(factors), equal_nan=True)
    assert step.skipped.tolist() == [skipped] * 4


@given(SIZES, LIMITS, LIMITS)
def test_a_mask_of_finite_sizes_says_no_more_than_none(sizes, low, high):
    sizes = torch.tensor(sizes)
    limits = band([low] * len(sizes), [high] * len(sizes))
    every = torch.ones_like(sizes, dtype=torch.bool)
    for nonfinite in ("raise", "skip", "zero", "propagate", "leave"):
        masked = respond(sizes, limits, every, "rescale", nonfinite)
        torch.testing.assert_close(tuple(masked), tuple(respond(sizes, limits)), rtol=0, atol=0)


def test_a_clipper_raises_lowers_and_leaves_its_parts():
    params = with_gradients([30.0, 40.0], [0.03, 0.04], [3.0, 4.0], [0.0, 0.0])
    clipper = Clipper(params, Between(1.0, 10.0), scope="tensor")
    report = clipper.clip()
    wanted = [[6.0, 8.0], [0.6, 0.8], [3.0, 4.0], [0.0, 0.0]]
    torch.testing.assert_close([p.grad for p in params], [torch.tensor(w) for w in wanted])
    assert report.threshold.tolist() == [10.0, 1.0, 10.0, 10.0]
    assert report.clipped.tolist() == [True, False, False, False]
    torch.testing.assert_close(report.norm_after, torch.tensor([10.0, 1.0, 5.0, 0.0]))


@pytest.mark.parametrize("fused", [False, True])
def test_one_small_part_is_raised_at_an_optimizer_too(fused):
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=1.0, fused=fused)
    Clipper([weight], Between(1.0, 10.0)).attach(optimizer)
    weight.grad = torch.tensor([0.03, 0.04])
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor([-0.6, -0.8]))


MIXED = Switch([([True, False, False], Between(2.0, 3.0)), ([False, True, True], 5.0)])


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (Bounded(Between(0.1, 9.0), low=0.5, high=2.0), [2.0, 0.5, 1.0]),
        (AfterWarmup(4.0, steps=1, until=Between(2.0, 3.0)), [3.0, 2.0, 2.0]),
        (AfterWarmup(Between(2.0, 3.0), steps=1, until=4.0), [4.0, 0.2, 1.0]),
        (MIXED, [3.0, 0.2, 1.0]),
    ],
)
def test_wrappers_hand_bands_on(policy, wanted):
    params = with_gradients([8.0], [0.2], [1.0])
    assert policy.band
    Clipper(params, policy, scope="tensor").clip()
    assert [float(p.grad) for p in params] == pytest.approx(wanted)
    assert not Bounded(1.0).band


def test_a_group_has_a_band_of_its_own():
    params = with_gradients([0.1], [0.1])
    groups = [{"params": params[:1], "threshold": Between(1.0, 2.0)}, {"params": params[1:]}]
    Clipper(groups, 5.0).clip()
    assert [float(p.grad) for p in params] == pytest.approx([1.0, 0.1])


@pytest.mark.parametrize("mode", ["soft", "skip", "normalise"])
@pytest.mark.parametrize("policy", [AdaNorm(), Bounded(AdaNorm()), AfterWarmup(1.0, 3, AdaNorm())])
def test_modes_that_do_not_rescale_are_refused(mode, policy):
    message = rf'mode "{mode}" cannot be used with a band, got {type(policy).__name__}'
    with pytest.raises(ValueError, match=message):
        Clipper(with_gradients([1.0]), policy, mode=mode)


def test_scope_element_is_refused():
    with pytest.raises(ValueError, match='scope "element" '):
        Clipper(with_gradients([1.0]), AdaNorm(), scope="element")


def test_a_recorded_run_is_replayed():
    params = with_gradients([0.0], [0.0])
    measured, banded = (
        Clipper(params, policy, scope="tensor", nonfinite="skip") for policy in (INF, AdaNorm(0.5))
    )
    for size in (1.0, 4.0, 0.5, 0.0, 2.0, NAN, 1.0):
        for clipper in (measured, banded):
            for p in params:
                p.grad = torch.tensor([size])
            clipper.clip()
    again = measured.history.replay(AdaNorm(0.5))
    for name in ("threshold", "factor", "clipped", "skipped"):
        found, wanted = getattr(again, name), getattr(banded.history, name)
        torch.testing.assert_close(found, wanted, equal_nan=True)


def test_a_function_of_plain_limits_stays_plain():
    limits = torch.tensor([1.0])
    assert torch.equal(on_both_sides(torch.neg, limits), -limits)
    mixed = on_both_sides(torch.add, limits, band([2.0], [3.0]))
    assert [float(limit) for limit in mixed] == [2.0, 4.0]


# Numbers of docstrings


def test_a_spike_of_ten_after_a_long_stream_of_one_has_the_target_4_4():
    weight = nn.Parameter(torch.zeros(1))
    clipper = cliplab.create("gradient_stabilizer", [weight])
    for size in [1.0] * 3000 + [10.0]:
        weight.grad = torch.tensor([size])
        clipper.clip()
    targets = clipper.history.threshold.flatten()
    assert targets[:-1].tolist() == pytest.approx([1.0] * 3000, rel=1e-4)
    assert round(float(targets[-1]), 1) == 4.4


def test_a_constant_stream_is_never_raised_by_adanorm():
    weight = nn.Parameter(torch.zeros(1))
    clipper = cliplab.create("adanorm", [weight])
    for _ in range(300):
        weight.grad = torch.tensor([2.0])
        clipper.clip()
    assert clipper.history.factor.max() <= 1 + 2**-22
