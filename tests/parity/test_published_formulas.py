"""The published formulas in plain Python floats, compared step by step with our policies."""

import math

import pytest
import reference
import torch
from making import with_gradients
from torch import nn

import cliplab
from cliplab import EMA, RMS, Clipper, Context, WeightRatio, ZScore
from cliplab.thresholds import Known


@pytest.fixture(scope="module")
def norms():
    """Norms ``[400, tensors]`` of a network in training, with spikes planted."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    rows = []
    for _ in range(400):
        x = torch.randn(8, 4)
        loss = (net(x) - x.prod(dim=1, keepdim=True).exp()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append([p.grad.norm().item() for p in net.parameters()])
    sizes = torch.tensor(rows)
    for step, factor in {10: 20.0, 60: 5.0, 150: 100.0, 151: 30.0, 250: 1e4, 300: 0.01}.items():
        sizes[step] *= factor
    sizes[350:] *= 3.0  # and a new level
    return sizes


@pytest.fixture(scope="module")
def stream(norms):
    return norms.norm(dim=1).tolist()


def clipped_by(method, stream, **parameters):
    """Norms after clipping of a gradient that has the given norms."""
    weight = nn.Parameter(torch.zeros(1))
    clipper = cliplab.create(method, [weight], **parameters)
    for size in stream:
        weight.grad = torch.tensor([size])
        clipper.clip()
    return clipper.history.norm_after.tolist()


def zclip(stream, response="reciprocal", max_norm=1.0, clip_factor=1.0, z_limit=2.5):
    """ZClip, Kumar et al. 2025, as published at bluorion-com/ZClip 584ce4f.

    The warm-up's variance is the biased one, and what is learnt is the norm clipped at the
    z-score's own limit: ``max_grad_norm`` does not enter the statistics.
    """
    after, seen, mean, variance = [], [], None, None
    for n in stream:
        limit = math.inf
        if mean is None:
            seen.append(n)
            if len(seen) == 25:
                mean = sum(seen) / 25
                variance = sum((x - mean) ** 2 for x in seen) / 25
        else:
            std = math.sqrt(variance)
            z = (n - mean) / (std + 1e-6)
            if response == "level":
                limit = mean + z_limit * std if n > mean + z_limit * std else math.inf
            elif z > z_limit:
                scaled = clip_factor * (mean + z_limit * std / (z / z_limit))
                limit = scaled if response == "reciprocal" else mean
            x = limit if limit < math.inf else n
            mean = 0.97 * mean + 0.03 * x
            variance = 0.97 * variance + 0.03 * (x - mean) ** 2
        after.append(min(n, limit, math.inf if max_norm is None else max_norm))
    return after


@pytest.mark.parametrize("max_norm", [None, 1.0, 0.3])
@pytest.mark.parametrize(
    ("response", "clip_factor"), [("reciprocal", 1.0), ("reciprocal", 0.7), ("mean", 1.0)]
)
def test_zclip(stream, response, clip_factor, max_norm):
    settings = {"response": response, "clip_factor": clip_factor, "max_norm": max_norm}
    expected = zclip(stream, **settings)
    assert sum(a < n for a, n in zip(expected, stream, strict=True)) > 20
    assert clipped_by("zclip", stream, **settings) == pytest.approx(expected, rel=1e-4)


def test_zclip_at_a_percentile(stream):
    z = 2.3263478740408408  # Phi^-1(0.99)
    expected = zclip(stream, "level", None, z_limit=z)
    ours = clipped_by("zclip", stream, percentile=99.0, max_norm=None)
    assert ours == pytest.approx(expected, rel=1e-4)


def test_zclip_survives_what_poisons_the_original(stream):
    bad = [*stream[:5], math.nan, *stream[5:100], math.inf, *stream[100:]]
    ours = clipped_by("zclip", bad, max_norm=None, nonfinite="skip")
    assert [a for a in ours if math.isfinite(a)] == pytest.approx(
        clipped_by("zclip", stream, max_norm=None)
    )


def test_autoclip(stream):
    """AutoClip, Seetharaman et al. 2020: numpy's percentile of all norms, this one included."""
    rule = reference.Percentile(10.0)
    expected = [min(n, rule.limit(n, {})) for n in stream]
    assert clipped_by("autoclip", stream) == pytest.approx(expected, rel=1e-5)


def test_edm_queue(stream):
    """EDM, Hoogeboom et al. 2022: a list of 50 that begins as [3000]."""
    scaled = [n * 1000 for n in stream]
    rule = reference.Queue(50, 1.5, 2.0, 3000.0)
    expected = [min(n, rule.limit(n, {})) for n in scaled]
    assert any(a < n for a, n in zip(expected, scaled, strict=True))
    assert clipped_by("edm_queue", scaled) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("warmup", [100, 1])
def test_adagc(norms, warmup):
    """AdaGC, Wang et al. 2025: per tensor, the whole gradient held to lambda_abs at first."""
    policy = EMA(warmup=warmup)
    policy.init(norms.shape[1])
    gamma = [math.inf] * norms.shape[1]
    clips = 0
    for t, row in enumerate(norms.tolist()):
        total = math.sqrt(sum(n * n for n in row))
        expected = []
        for i, n in enumerate(row):
            if t < warmup:
                expected.append(n * min(1.0 / total, 1.0))
                gamma[i] = min(gamma[i], expected[i])
            else:
                expected.append(n * min(1.05 * gamma[i] / n, 1.0))
                gamma[i] = 0.98 * gamma[i] + 0.02 * expected[i]
            clips += expected[i] < n
        sizes = norms[t]
        context = Context(torch.ones(len(row)).bool(), t, measured=Known(total_norm=sizes.norm()))
        after = torch.minimum(sizes, policy(sizes, context))
        assert after.tolist() == pytest.approx(expected, rel=1e-4)
    assert clips > 400


def test_olmo_ratio(stream):
    """OLMo's max_grad_norm_ratio: AdaGC's rule from the first norm on, without a warm-up."""
    policy, mean = EMA(ratio=1.5, beta=0.9, warmup=0), stream[0]
    policy.init(1)
    for t, n in enumerate(stream):
        after = min(n, 1.5 * mean)
        mean = 0.9 * mean + 0.1 * after
        limit = policy(torch.tensor([n]), Context(torch.tensor([True]), t)).item()
        assert min(n, limit) == pytest.approx(after, rel=1e-4)


GRADS = [torch.tensor([[3.0, -4.0], [0.0, 0.5]]), torch.tensor([12.0]), torch.zeros(3)]
WEIGHTS = [torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([1.0]), torch.zeros(3)]


def clipped(threshold, scope):
    params = with_gradients(*GRADS, weights=WEIGHTS)
    Clipper(params, threshold, scope=scope).clip()
    return [p.grad for p in params]


def block_rms(threshold):
    """Our rule for clip_by_block_rms, by hand: a limit of d * sqrt(entries) for every tensor."""
    sizes = torch.stack([g.norm() for g in GRADS])
    numels = torch.tensor([g.numel() for g in GRADS])
    policy = RMS(threshold)
    policy.init(len(GRADS))
    limits = policy(sizes, Context(torch.ones(3).bool(), measured=Known(numels=numels)))
    factors = torch.where(sizes > limits, limits / sizes, 1.0)
    return [g * f for g, f in zip(GRADS, factors, strict=True)]


def agc(ratio, eps):
    """Our rule for AGC on rows, by hand."""
    grads, weights = GRADS[0], WEIGHTS[0]
    sizes, policy = grads.norm(dim=1), WeightRatio(ratio, eps)
    policy.init(2)
    context = Context(torch.ones(2).bool(), measured=Known(weight_norms=weights.norm(dim=1)))
    limits = policy(sizes, context)
    return grads * torch.where(sizes > limits, limits / sizes, 1.0)[:, None]


@pytest.mark.parametrize("c", [0.1, 1.0, 13.0096, 41.0, 100.0])
def test_global_norm_formulas(c):
    n = math.sqrt(25 + 0.25 + 144)
    tf = c * min(1 / n, 1 / c)
    optax = 1.0 if n < c else c / n
    for g, ours in zip(GRADS, clipped(c, "global"), strict=True):
        torch.testing.assert_close(ours, g * tf)
        torch.testing.assert_close(ours, g * optax)


@pytest.mark.parametrize("c", [0.1, 5.0, 100.0])
def test_tensor_norm_and_block_rms_formulas(c):
    for g, per_norm, per_rms in zip(GRADS, clipped(c, "tensor"), block_rms(c), strict=True):
        torch.testing.assert_close(per_norm, g * c / max(g.norm().item(), c))
        rms = g.square().mean().sqrt().item()
        torch.testing.assert_close(per_rms, g / max(1.0, rms / c))


def test_adaptive_grad_clip_formula():
    g, w = GRADS[0], WEIGHTS[0]
    largest = 0.01 * w.norm(dim=1, keepdim=True).clamp(min=1e-3)
    norm = g.norm(dim=1, keepdim=True)
    expected = torch.where(norm < largest, g, g * largest / norm.clamp(min=1e-6))
    torch.testing.assert_close(agc(0.01, 1e-3), expected)


def test_a_level_shift_locks_the_published_zclip_in_and_ours_too():
    """Parity includes the weakness: this is why there is a bound, and a robust rule."""
    policy = ZScore()
    policy.init(1)
    generator = torch.Generator().manual_seed(0)
    sizes = 1 + 0.1 * torch.randn(600, generator=generator)
    sizes[200:] += 2
    limits = [policy(s.reshape(1), Context(torch.tensor([True]))).item() for s in sizes]
    hits = [n > limit for n, limit in zip(sizes[200:].tolist(), limits[200:], strict=True)]
    assert all(hits)
