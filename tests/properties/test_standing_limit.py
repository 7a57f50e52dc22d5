"""What must hold for any gradient, with a limit that stands still."""

import itertools
import math
import warnings

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from making import with_gradients

from cliplab import Clipper

SCOPES = ["global", "group", "tensor", "unit", "element", "member"]
WHOLE = ["global", "tensor", "unit", "member"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
GRADIENTS = {
    "seed": st.integers(0, 10_000),
    "exponent": st.floats(-2, 2),
    "limit": st.floats(0.01, 100),
    "scope": st.sampled_from(SCOPES),
    "dtype": st.sampled_from(DTYPES),
}


def gradients(seed, exponent, dtype):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (3, 2, 2), (3,)]
    return [(torch.randn(s, generator=generator) * 10**exponent).to(dtype) for s in shapes]


def clip(grads, limit, scope, **settings):
    params = with_gradients(*grads)
    report = Clipper(params, limit, scope=scope, **settings).clip()
    return [p.grad for p in params], report


def sizes(grads, scope):
    """Sizes of the parts by their definition, in double."""
    wide = [g.double() for g in grads]
    if scope == "tensor":
        return torch.stack([g.norm() for g in wide])
    if scope == "unit":
        return torch.cat([g.flatten(1).norm(dim=1) if g.ndim > 1 else g.norm()[None] for g in wide])
    if scope == "member":
        return torch.cat([g.reshape(len(g), -1) for g in wide], dim=1).norm(dim=1)
    flat = torch.cat([g.flatten() for g in wide])
    return flat.abs().max()[None] if scope == "element" else flat.norm()[None]


@given(**GRADIENTS, order=st.sampled_from([2.0]))
def test_sizes_are_what_their_definition_says(seed, exponent, limit, scope, dtype, order):
    grads = gradients(seed, exponent, dtype)
    _, report = clip(grads, limit, scope, norm_type=order)
    found = report.norm_before.reshape(-1).double()
    torch.testing.assert_close(found, sizes(grads, scope), rtol=1e-5, atol=1e-30)


@given(**GRADIENTS)
def test_the_size_after_is_at_most_the_limit(seed, exponent, limit, scope, dtype):
    grads = gradients(seed, exponent, dtype)
    after, _ = clip(grads, limit, scope)
    entries = sum(g.numel() for g in grads)
    slack = 1 + 4 * torch.finfo(dtype).eps * math.sqrt(entries)
    assert (sizes(after, scope) <= limit * slack).all()


@given(**GRADIENTS)
def test_below_the_limit_nothing_changes_bit_for_bit(seed, exponent, limit, scope, dtype):
    grads = gradients(seed, exponent, dtype)
    most = float(sizes(grads, scope).max())
    assume(most > 0)
    after, report = clip(grads, most * 1.001, scope)
    assert all(torch.equal(a, b) for a, b in zip(after, grads, strict=True))
    assert not report.clipped.any()


@given(**GRADIENTS)
def test_clipping_twice_is_clipping_once(seed, exponent, limit, scope, dtype):
    once, _ = clip(gradients(seed, exponent, dtype), limit, scope)
    twice, _ = clip(once, limit, scope)
    entries = sum(g.numel() for g in once)
    slack = 4 * torch.finfo(dtype).eps * math.sqrt(entries)
    tiny = torch.finfo(dtype).smallest_normal
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(a, b, rtol=slack, atol=tiny)


@given(
    seed=st.integers(0, 10_000),
    limit=st.floats(0.01, 100),
    scope=st.sampled_from(SCOPES),
    power=st.integers(-20, 20),
    mode=st.sampled_from(["rescale", "soft", "normalise"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_scaling_by_powers_of_two_commutes(seed, limit, scope, power, mode, dtype):
    assume(scope != "element" or mode == "rescale")
    scale = 2.0**power
    limit = torch.tensor(limit).item()
    grads = gradients(seed, 0.0, dtype)
    after, _ = clip(grads, limit, scope, mode=mode)
    scaled, _ = clip([g * scale for g in grads], limit * scale, scope, mode=mode)
    for a, b in zip(after, scaled, strict=True):
        assert torch.equal(a * scale, b)


@given(
    seed=st.integers(0, 10_000),
    limit=st.floats(0.01, 100),
    scope=st.sampled_from(["global", "group"]),
    mode=st.sampled_from(["rescale", "soft", "normalise"]),
)
def test_the_direction_is_kept(seed, limit, scope, mode):
    grads = gradients(seed, 0.0, torch.float32)
    after, _ = clip(grads, limit, scope, mode=mode)
    before, now = (torch.cat([g.flatten() for g in x]).double() for x in (grads, after))
    assert torch.cosine_similarity(before, now, dim=0) == pytest.approx(1.0, abs=1e-9)


@given(
    **{**GRADIENTS, "scope": st.sampled_from([*WHOLE, "group"])}, order=st.sampled_from([1, 2, 3])
)
def test_normalised_is_the_gradient_by_its_size_times_the_limit(
    seed, exponent, limit, scope, dtype, order
):
    grads = gradients(seed, exponent, dtype)
    after, report = clip(grads, limit, scope, mode="normalise", norm_type=order)
    limit = float(report.threshold.reshape(-1)[0])
    before = [g.double() for g in grads]
    measured = report.norm_before.reshape(-1).double()
    each = shared(measured, scope, grads)
    for found, raw, size in zip(after, before, each, strict=True):
        wanted = raw * limit / size.reshape(-1, *[1] * (raw.ndim - 1))
        tiny = torch.finfo(dtype).tiny
        torch.testing.assert_close(
            found, wanted.to(dtype), rtol=4 * torch.finfo(dtype).eps, atol=tiny
        )
    assert report.factor.reshape(-1).tolist() == pytest.approx(
        (limit / measured).tolist(), rel=1e-6
    )
    assert report.norm_after.reshape(-1).tolist() == pytest.approx(
        [limit] * len(measured), rel=1e-6
    )
    assert torch.equal(report.clipped, report.norm_before > report.threshold)


def shared(sizes, scope, grads):
    """Every tensor's own sizes: one, or one a row."""
    if scope == "tensor":
        return sizes.unbind()
    if scope == "unit":
        return torch.split(sizes, [len(g) if g.ndim > 1 else 1 for g in grads])
    return [sizes] * len(grads)


@given(
    seed=st.integers(0, 10_000),
    limit=st.floats(0.01, 100),
    scope=st.sampled_from(WHOLE),
    exponents=st.tuples(st.floats(-6, 6), st.floats(-6, 6)),
)
def test_normalised_depends_on_the_direction_alone(seed, limit, scope, exponents):
    unit = gradients(seed, 0.0, torch.float64)
    one, other = (
        clip([g * 10**e for g in unit], limit, scope, mode="normalise")[0] for e in exponents
    )
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    found = sizes(one, scope)
    torch.testing.assert_close(found, torch.full_like(found, limit), rtol=1e-6, atol=0)


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scope", WHOLE)
@pytest.mark.parametrize("limit", [0.0, 1e-3, 1.0, 100.0])
def test_normalising_the_smallest_gradients_makes_nothing_infinite(
    monkeypatch, look, dtype, scope, limit
):
    monkeypatch.setattr("cliplab.checks.LOOK", look)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    for entry in (0.0, smallest, torch.finfo(dtype).smallest_normal):
        grads = [torch.zeros(2, 3, dtype=dtype), torch.zeros(2, dtype=dtype)]
        grads[0][0, 0] = grads[1][1] = entry
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "a threshold of 0")
            after, report = clip(grads, limit, scope, mode="normalise", nonfinite="propagate")
        assert report.factor.isfinite().all()
        assert (report.factor <= 2.0**126).all()
        assert (report.factor[report.norm_before == 0] == 1).all()
        for a, g in zip(after, grads, strict=True):
            assert a.isfinite().all()
            assert (a[g == 0] == 0).all()
        assert (sizes(after, scope) <= limit * 1.01 + smallest).all()


@given(
    direction=st.integers(0, 1000),
    limit=st.floats(0.01, 100),
    scope=st.sampled_from(["global", "group", "tensor", "unit", "member"]),
    exponents=st.lists(st.floats(-3, 3), min_size=2, max_size=6, unique=True),
)
def test_soft_is_below_the_limit_and_monotone(direction, limit, scope, exponents):
    unit = gradients(direction, 0.0, torch.float64)
    found = []
    for exponent in sorted(exponents):
        after, report = clip([g * limit * 10**exponent for g in unit], limit, scope, mode="soft")
        torch.testing.assert_close(
            report.norm_after.reshape(-1), sizes(after, scope), rtol=1e-9, atol=0
        )
        found.append(sizes(after, scope))
        assert (found[-1] < limit).all()
    for lower, higher in itertools.pairwise(found):
        assert (higher >= lower * (1 - 1e-12)).all()
    spread = max(exponents) - min(exponents)
    if spread > 1e-6:
        assert (found[-1] > found[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "member"])
def test_half_gradients_neither_overflow_nor_vanish(dtype, scope):
    big = [torch.full((4, 5000), 3e4, dtype=dtype)]
    after, report = clip(big, 1.0, scope)
    assert report.norm_before.max().item() == pytest.approx(
        3e4 * math.sqrt(20000 if scope in ("global", "tensor") else 5000), rel=5e-3
    )
    assert sizes(after, scope).max().item() == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("entry", [1e25, 1e-25, 1e30, 1e-38])
@pytest.mark.parametrize("scope", ["global", "tensor", "unit", "member", "element"])
def test_very_large_and_very_small_entries(entry, scope):
    grads = [torch.full((3, 4), entry), torch.full((3,), entry)]
    after, report = clip(grads, entry, scope)
    expected = sizes([g.double() for g in grads], scope)
    torch.testing.assert_close(report.norm_before.reshape(-1).double(), expected, rtol=1e-5, atol=0)
    assert (sizes(after, scope) <= entry * (1 + 1e-5)).all()
    assert all((a != 0).all() for a in after)


@pytest.mark.parametrize("scope", ["global", "tensor", "unit"])
def test_mixed_dtypes_are_measured_together(scope):
    grads = [torch.ones(2, 3).bfloat16(), torch.ones(2, 3).double(), torch.ones(2, 3).half()]
    after, _ = clip(grads, 0.5, scope)
    assert (sizes(after, scope) <= 0.5 * 1.02).all()
    assert [a.dtype for a in after] == [g.dtype for g in grads]
