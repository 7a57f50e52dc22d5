"""What is not known (NaN), or endless, in a history: it is left out, and never printed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import with_gradients
from torch import nn

from cliplab import EMA, Clipper, Percentile, diagnose
from cliplab.diagnosis import MIN_STEPS
from cliplab.history import History

NORMS = [math.nan, math.inf, 0.0, 1e-3, 1.0, 1.1, 50.0]
LIMITS = [math.nan, math.inf, 0.0, 1.0, 1e6]


def history_of(norms, limits):
    """A history ``[steps, n_parts]`` of sizes and limits, clipped where they are above."""
    history = History([f"part {i}" for i in range(norms.shape[1])])
    for n, c in zip(norms, limits, strict=True):
        over = (n > c).float()
        history.append(torch.stack([n, n, c, torch.ones_like(n), over, torch.zeros_like(n)]), None)
    return history


@given(
    seed=st.integers(0, 9999),
    parts=st.integers(1, 4),
    steps=st.sampled_from([60, 120, 240]),
    norms=st.lists(st.sampled_from(NORMS), min_size=1, max_size=3),
    limits=st.lists(st.sampled_from(LIMITS), min_size=1, max_size=2),
)
def test_no_finding_says_nan(seed, parts, steps, norms, limits):
    draw = torch.Generator().manual_seed(seed)
    chosen = [
        torch.tensor(values)[torch.randint(len(values), (steps, parts), generator=draw)]
        for values in (norms, limits)
    ]
    jitter = 1 + 0.1 * torch.rand(steps, parts, generator=draw)
    found = diagnose(history_of(chosen[0] * jitter, chosen[1]))
    assert "nan" not in str(found).lower().replace("financ", "")
    assert "nan" not in found._repr_html_().lower()


@pytest.mark.parametrize("policy", [Percentile(100), 2.0, EMA(1e6, warmup=0)])
def test_a_part_that_never_has_a_gradient_is_left_out_of_the_ratio(policy):
    params = with_gradients([1.0], [1.0])
    params[1].grad = None
    clipper = Clipper(params, policy, scope="tensor")
    for step in range(MIN_STEPS):
        params[0].grad = torch.tensor([1 / (1 + step)])
        clipper.clip()
    (finding,) = (f for f in diagnose(clipper) if f.name == "never clips")
    assert math.isfinite(finding.evidence["ratio"])
    assert finding.evidence["ratio"] >= 1
    assert "nan" not in finding.message


def test_a_model_that_never_has_a_gradient_says_no_nan():
    findings = diagnose(history_of(torch.zeros(60, 2), torch.ones(60, 2)))
    assert [f.name for f in findings] == ["never clips", "too short"]
    assert findings[0].as_dict()["evidence"]["ratio"] is None
    assert "nan" not in str(findings)


def test_a_clipper_is_diagnosed_by_its_history():
    clipper = Clipper(with_gradients([5.0]), 1.0)
    for _ in range(60):
        clipper.params[0].grad = torch.tensor([5.0])
        clipper.clip()
    assert list(diagnose(clipper, 0.1)) == list(diagnose(clipper.history, 0.1))
    assert "always clips" in {finding.name for finding in diagnose(clipper)}


def clipper_of(sizes, mode):
    clipper = Clipper(with_gradients([1.0]), 1.0, mode=mode)
    for size in sizes:
        clipper.params[0].grad = torch.tensor([size])
        clipper.clip()
    return clipper


@pytest.mark.parametrize("sizes", [[5.0] * 60, [0.5] * 60, [5.0, 0.5, 5.0] * 20])
def test_where_gradients_are_normalised_no_clip_frequency_is_judged(sizes):
    rates = {"always clips", "never clips", "threshold below the median"}
    clipper = clipper_of(sizes, "normalise")
    assert rates & {f.name for f in diagnose(clipper_of(sizes, "rescale"))}
    assert not rates & {f.name for f in diagnose(clipper)}
    if min(sizes) < 1:  # what was made larger shows in the record
        assert not rates & {f.name for f in diagnose(clipper.history)}


@pytest.mark.parametrize("wrong", [None, 3, nn.Linear(2, 2), [1.0], torch.ones(99), History])
def test_what_has_no_history_is_named(wrong):
    with pytest.raises(ValueError, match="diagnose needs a History or a Clipper, got") as refused:
        diagnose(wrong)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64])
def test_a_default_dtype_changes_no_finding(default):
    draw = torch.Generator().manual_seed(0)
    norms = torch.rand(300, 3, generator=draw).exp() * torch.linspace(1, 60, 300)[:, None]
    norms[250] *= 100
    history = history_of(norms, torch.full_like(norms, 5.0))
    expected = list(map(str, diagnose(history)))
    torch.set_default_dtype(default)
    try:
        found = list(map(str, diagnose(history)))
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(expected) >= 2
    assert found == expected
