"""What a size is answered with: the one formula, and what becomes of sizes that are not finite."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cliplab import Clipper
from cliplab.thresholds import Step, clip_factor, left_out, respond

NAN, INF = math.nan, math.inf
SIZES = st.lists(st.floats(0, 2**100, width=32, allow_subnormal=False), min_size=1, max_size=5)


def same(step, **columns):
    for name, wanted in columns.items():
        found = getattr(step, name)
        torch.testing.assert_close(found, torch.tensor(wanted), equal_nan=True, msg=name)


@given(SIZES, st.floats(0, 2**100, width=32, allow_subnormal=False))
@example([1.5845638169692647e29], 2.220446049250313e-16)  # the factor is subnormal
def test_no_part_is_larger_than_its_limit_afterwards_and_none_grows(sizes, limit):
    sizes = torch.tensor(sizes)
    step = respond(sizes, torch.full_like(sizes, limit))
    assert bool((step.factor <= 1).all())
    assert bool((step.after <= sizes).all())
    subnormal = sizes * 2**-149  # a factor as small as that is rounded by as much
    assert bool((step.after <= limit * (1 + 2**-22) + subnormal + 1e-44).all())
    assert torch.equal(step.factor == 1, step.clipped == 0)
    assert not step.skipped.any()


@given(
    SIZES,
    st.sampled_from(["rescale", "soft", "normalise", "skip", "clamp"]),
    st.floats(0, 100, width=32),
)
def test_a_mask_of_finite_sizes_says_no_more_than_none(sizes, mode, limit):
    sizes = torch.tensor(sizes)
    limits, every = torch.full_like(sizes, limit), torch.ones_like(sizes, dtype=torch.bool)
    for nonfinite in ("raise", "skip", "zero", "propagate", "leave"):
        with_mask = respond(sizes, limits, every, mode, nonfinite)
        without = respond(sizes, limits, None, mode, nonfinite)
        torch.testing.assert_close(tuple(with_mask), tuple(without), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise", "skip", "clamp"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "zero", "propagate", "leave"])
def test_nothing_given_is_changed_and_every_column_has_the_dtype_of_the_sizes(mode, nonfinite):
    sizes = torch.tensor([3.0, NAN, INF, 0.0], dtype=torch.float64)
    limits = torch.ones_like(sizes)
    given_sizes, given_limits = sizes.clone(), limits.clone()
    step = respond(sizes, limits, sizes.isfinite(), mode, nonfinite)
    assert isinstance(step, Step)
    torch.testing.assert_close((sizes, limits), (given_sizes, given_limits), equal_nan=True)
    assert {(column.dtype, column.shape) for column in step} == {(torch.float64, sizes.shape)}


def test_soft_and_skip_and_clamp():
    sizes, limits = torch.tensor([3.0, 0.5]), torch.tensor([1.0, 1.0])
    same(respond(sizes, limits, mode="soft"), factor=[0.25, 2 / 3], clipped=[1.0, 0.0])
    same(respond(sizes, limits, mode="normalise"), factor=[1 / 3, 2.0], clipped=[1.0, 0.0])
    same(
        respond(sizes, limits, mode="skip"), factor=[1.0, 1.0], after=[3.0, 0.5], skipped=[1.0] * 2
    )
    same(respond(sizes / 9, limits, mode="skip"), clipped=[0.0, 0.0], skipped=[0.0, 0.0])
    same(respond(sizes, limits, mode="clamp"), after=[1.0, 0.5], clipped=[1.0, 0.0])


@pytest.mark.parametrize(
    ("nonfinite", "columns"),
    [
        ("skip", {"factor": [1.0, 1.0, 1.0], "skipped": [1.0] * 3, "clipped": [1.0, 0.0, 1.0]}),
        ("zero", {"factor": [0.5, 0.0, 0.0], "after": [1.0, 0.0, 0.0], "clipped": [1.0, 0.0, 0.0]}),
        ("propagate", {"factor": [0.5, NAN, 0.0], "after": [1.0, NAN, NAN], "skipped": [0.0] * 3}),
        ("leave", {"factor": [0.5, 1.0, 1.0], "after": [1.0, NAN, INF], "skipped": [0.0] * 3}),
    ],
)
def test_what_is_not_finite(nonfinite, columns):
    sizes = torch.tensor([2.0, NAN, INF])
    same(respond(sizes, torch.ones(3), sizes.isfinite(), nonfinite=nonfinite), **columns)


@pytest.mark.parametrize(
    ("nonfinite", "columns"),
    [
        ("skip", {"factor": [1.0] * 4, "skipped": [1.0] * 4, "clipped": [1.0, 0.0, 0.0, 1.0]}),
        ("zero", {"factor": [0.5, 4.0, 0.0, 0.0], "after": [1.0, 1.0, 0.0, 0.0]}),
        ("propagate", {"factor": [0.5, 4.0, NAN, 0.0], "after": [1.0, 1.0, NAN, NAN]}),
        ("leave", {"factor": [0.5, 4.0, 1.0, 1.0], "after": [1.0, 1.0, NAN, INF]}),
    ],
)
def test_what_is_not_finite_is_not_normalised(nonfinite, columns):
    sizes = torch.tensor([2.0, 0.25, NAN, INF])
    limits = torch.ones(4)
    same(respond(sizes, limits, sizes.isfinite(), "normalise", nonfinite), **columns)


@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise"])
def test_without_a_limit_nothing_meets_a_factor(mode):
    sizes = torch.tensor([2.0, INF])
    step = respond(sizes, torch.full((2,), INF), sizes.isfinite(), mode, nonfinite="propagate")
    same(step, factor=[1.0, 1.0], clipped=[0.0, 0.0])


def test_a_size_of_nothing_is_not_normalised():
    same(respond(torch.zeros(2), torch.tensor([1.0, 0.0]), mode="normalise"), factor=[1.0, 1.0])
    same(respond(torch.ones(1), torch.zeros(1), mode="normalise"), factor=[0.0], after=[0.0])


def test_a_step_can_be_left_out_without_changing_it():
    step = respond(torch.tensor([2.0, 1.0]), torch.ones(2))
    same(left_out(step, torch.tensor(True)), skipped=[1.0, 1.0], factor=[0.5, 1.0])
    same(left_out(step, torch.tensor(False)), skipped=[0.0, 0.0])
    assert not step.skipped.any()


def test_the_guard_of_the_factor_decides_not_the_formula():
    within = torch.tensor([False, True, False])
    factor = clip_factor(torch.tensor([4.0, 0.0, NAN]), 2.0, within)
    assert factor[:2].tolist() == [0.5, 1.0]
    assert factor[2].isnan()


def test_soft_near_the_largest_float():
    sizes, limits = torch.tensor([1e38, 3e38, 3e38]), torch.tensor([3e38, 3e38, 1e38])
    step = respond(sizes, limits, mode="soft")
    torch.testing.assert_close(step.factor, torch.tensor([0.75, 0.5, 0.25]))
    wide = torch.tensor([1e308], dtype=torch.float64)
    assert respond(wide, wide * 1.7, mode="soft").factor.item() == pytest.approx(1.7 / 2.7)


ANY = {
    torch.float32: st.floats(0, 3.4e38),
    torch.float64: st.floats(0, 1.79e308),
}


@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise"])
@pytest.mark.parametrize("dtype", ANY)
@given(data=st.data())
def test_factors_of_any_size_and_limit_are_those_of_exact_arithmetic(mode, dtype, data):
    size, limit = data.draw(ANY[dtype]), data.draw(ANY[dtype])
    sizes, limits = torch.tensor([size], dtype=dtype), torch.tensor([limit], dtype=dtype)
    n, c = Fraction(sizes.item()), Fraction(limits.item())
    step = respond(sizes, limits, mode=mode)
    exact = Fraction(1)
    if mode == "soft" and n:
        exact = c / (c + n)
    elif mode == "normalise" and n:
        exact = min(c / n, Fraction(2**126))
    elif n > c:
        exact = c / n
    info = torch.finfo(dtype)
    near = {"rel": 4 * info.eps, "abs": info.tiny * info.eps}
    assert step.factor.item() == pytest.approx(float(exact), **near)
    least = info.tiny * info.eps  # a factor, or a size, below the normal range is rounded by it
    lost = max(float(n), 1.0) * least
    assert step.after.item() == pytest.approx(float(n * exact), rel=8 * info.eps, abs=lost)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("mode", ["rescale", "soft", "normalise"])
@pytest.mark.parametrize(
    ("size", "limit"),
    [(1e38, 3e38), (3e38, 1e38), (3e38, 3e38), (3e-45, 1e-45), (1e-40, 3e-40), (1e-38, 1e-40)],
)
def test_gradients_at_the_ends_of_the_range_meet_the_right_factor(dtype, scope, mode, size, limit):
    weight = torch.nn.Parameter(torch.zeros(2, dtype=dtype))
    weight.grad = torch.tensor([size, 0.0], dtype=dtype)
    n, c = weight.grad[0].item(), torch.tensor(limit, dtype=dtype).item()
    clipper = Clipper([weight], limit, scope=scope, mode=mode)
    report = clipper.clip()
    exact = {"rescale": min(1.0, c / n), "soft": 1 / (1 + n / c), "normalise": c / n}[mode]
    rounding = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    assert report.factor.item() == pytest.approx(exact, rel=1e-6)
    assert weight.grad[0].item() == pytest.approx(n * exact, rel=1e-6, abs=rounding)
