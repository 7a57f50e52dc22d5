"""Methods by name, step by step, against what their sources publish, written down in doubles."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import cliplab

STEPS = 60
SHAPES = [(4, 3), (3,)]


def stream(steps=STEPS, seed=0):
    """Gradients of log-normal scale with a spike at every eleventh step."""
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        scale = math.exp(0.3 * torch.randn((), generator=draw).item())
        scale *= 30.0 if step % 11 == 10 else 1.0
        yield [scale * torch.randn(s, generator=draw, dtype=torch.float64) for s in SHAPES]


def parameters(seed=1):
    draw = torch.Generator().manual_seed(seed)
    weights = [torch.randn(s, generator=draw, dtype=torch.float64) for s in SHAPES]
    return [nn.Parameter(w) for w in weights]


def whole(tensors):
    return math.sqrt(sum(float(t.square().sum()) for t in tensors))


def follow(name, rule, *, groups=False, losses=None, **options):
    """Clip a stream by a method; ``rule(step, gradients)`` says what is left of them."""
    params = parameters()
    given = [{"params": [p]} for p in params] if groups else params
    clipper = cliplab.create(name, given, **options)
    acted = 0
    for step, grads in enumerate(stream()):
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        clipper.clip(None if losses is None else losses[step])
        expected = rule(step, [g.clone() for g in grads])
        for p, wanted, raw in zip(params, expected, grads, strict=True):
            torch.testing.assert_close(p.grad, wanted, rtol=1e-5, atol=1e-16)
            acted += not torch.equal(wanted, raw)
    assert acted
    return clipper


def each(rule):
    """A rule ``(index, step, norm) -> factor`` of every tensor on its own."""
    return lambda step, grads: [g * rule(i, step, float(g.norm())) for i, g in enumerate(grads)]


def test_gradient_stabilizer():
    m, v = [0.0, 0.0], [0.0, 0.0]

    def factor(i, step, n):
        m[i] = 0.6 * m[i] + 0.4 * n
        v[i] = 0.999 * v[i] + 0.001 * n * n
        mean, square = m[i] / (1 - 0.6 ** (step + 1)), v[i] / (1 - 0.999 ** (step + 1))
        return mean / (math.sqrt(square) + 1e-12) / max(n, 1e-12)

    follow("gradient_stabilizer", each(factor))


def test_adanorm():
    s = [0.0, 0.0]

    def factor(i, step, n):
        s[i] = 0.95 * s[i] + 0.05 * n
        return s[i] / n if s[i] > n else 1.0

    clipper = follow("adanorm", each(factor))
    assert bool((clipper.history.factor > 1.5).any())
    assert not clipper.history.clipped.any()


@pytest.mark.parametrize("raise_small", [False, True])
@pytest.mark.parametrize("total", [None, 50])
def test_aggc(raise_small, total):
    options = {"steps": total, "raise_small": raise_small, "high": 1.2, "late_high": 1.5}
    ema = [0.0, 0.0]

    def factor(i, step, n):
        low, high, progress = 0.95, 1.2, 0.0 if total is None else min(1.0, step / total)
        if progress >= 0.7:
            low, high = 0.98, 1.5
        elif progress > 0.4:
            alpha = (progress - 0.4) / 0.3
            low, high = low * (1 - alpha) + 0.98 * alpha, high * (1 - alpha) + 1.5 * alpha
        lower, upper, scale = max(0.01, ema[i] * low), ema[i] * high, 1.0
        if upper > 0 and n > upper:
            scale = max(upper / n, 0.9)
        elif raise_small and n < lower:
            scale = min(lower / n, 1.1)
        ema[i] = 0.95 * ema[i] + 0.05 * n * scale
        return scale

    clipper = follow("aggc", each(factor), groups=True, **options)
    assert bool((clipper.history.factor > 1).any()) is raise_small


def test_aggc_as_published_scales_a_constant_stream_by_its_cap_at_every_step_but_the_first():
    weight = nn.Parameter(torch.zeros(2))
    clipper = cliplab.create("aggc", [weight])
    for _ in range(100):
        weight.grad = torch.tensor([3.0, 4.0])
        clipper.clip()
    factors = clipper.history.factor.flatten().tolist()
    assert factors[0] == 1
    assert factors[1:] == pytest.approx([0.9] * 99)


LOSSES = [2.0 + 0.3 * math.sin(step) + (5.0 if step % 13 == 12 else 0.0) for step in range(STEPS)]


def test_loss_ratio():
    ewm = []

    def rule(step, grads):
        loss = LOSSES[step]
        mean = ewm[-1] if ewm else loss
        ratio = loss / mean
        ewm.append(0.8 * mean + 0.2 * loss)
        return [g / ratio**4 if ratio > 1 else g for g in grads]

    follow("loss_ratio", rule, losses=LOSSES)


def test_loss_ratio_needs_a_loss():
    params = parameters()
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"needs the loss of every step: clip\(loss\) or observe"):
        cliplab.create("loss_ratio", params).clip()


def test_percentile_window():
    seen = []

    def rule(step, grads):
        seen.append(whole(grads))
        limit = min(6.0, np.percentile(seen[-20:], 95))
        return [g * min(1.0, limit / seen[-1]) for g in grads]

    follow("percentile_window", rule, window=20, max_norm=6.0)


def test_agc_tensor():
    norms = [max(1e-3, float(p.detach().norm())) for p in parameters()]
    follow("agc_tensor", each(lambda i, step, n: 1 / max(1.0, n / (0.3 * norms[i]))))


def test_olmo_ratio():
    average = [None, None]

    def factor(i, step, n):
        average[i] = n if average[i] is None else average[i]
        scale = min(1.0, 2.0 * average[i] / n)
        average[i] += 0.05 * (n * scale - average[i])
        return scale

    follow("olmo_ratio", each(factor))


def test_warmup_tight():
    def rule(step, grads):
        limit = 5.0 * 0.8 if step < 25 else 0.8
        return [g * min(1.0, limit / whole(grads)) for g in grads]

    follow("warmup_tight", rule, threshold=0.8, steps=25, factor=5.0)


def test_skip_threshold():
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=0.1)
    clipper = cliplab.create("skip_threshold", params, threshold=10.0)
    clipper.attach(optimizer)
    expected = [p.detach().clone() for p in params]
    for grads in stream():
        for p, w, g in zip(params, expected, grads, strict=True):
            p.grad = g
            if whole(grads) <= 10.0:
                w.sub_(g, alpha=0.1)
        optimizer.step()
    torch.testing.assert_close([p.detach() for p in params], expected)
    assert 0 < int(clipper.history.skipped.sum()) < STEPS


def test_skip_threshold_skips_nothing_by_default():
    params = parameters()
    for p in params:
        p.grad = torch.full_like(p, 1e30)
    assert not cliplab.create("skip_threshold", params).clip().skipped


@pytest.mark.parametrize("rate", [None, 0.2])
def test_katago(rate):
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=0.1)
    clipper = cliplab.create("katago", params, threshold=0.5, batch=1024, rate=rate)
    clipper.attach(optimizer)
    for step, grads in enumerate(stream()):
        lr = 0.1 * 0.9**step
        optimizer.param_groups[0]["lr"] = lr
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        optimizer.step()
        cap = 0.5 * math.sqrt(1024 / 256) / math.sqrt(max(1e-7, lr / (rate or 0.1)))
        for p, g in zip(params, grads, strict=True):
            torch.testing.assert_close(p.grad, g * min(1.0, cap / whole(grads)), rtol=1e-5, atol=0)
    assert 0 < int(clipper.history.clipped.sum()) < STEPS


def test_katago_by_hand_says_what_it_needs():
    params = parameters()
    for p in params:
        p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r"follows the learning rate, which is not known: attach"):
        cliplab.create("katago", params).clip()


@pytest.mark.parametrize(("floor", "warmup"), [(1e-10, 0), (0.5, 0), (1e-10, 7)])
def test_adamw_clip(floor, warmup):
    squares = [torch.zeros(s, dtype=torch.float64) for s in SHAPES]

    def rule(step, grads):
        for g, v in zip(grads, squares, strict=True):
            if step >= warmup:
                bound = ((v / (1 - 0.999**step) if step else v).sqrt() * 3).clamp(min=floor)
                g.copy_(torch.minimum(torch.maximum(g, -bound), bound))
            v.mul_(0.999).addcmul_(g, g, value=1 - 0.999)
        return grads

    follow("adamw_clip", rule, floor=floor, warmup=warmup)


# Of the update


class Adam:
    """AdamW by its definition, without weight decay."""

    def __init__(self, shapes):
        self.m, self.v = ([torch.zeros(s, dtype=torch.float64) for s in shapes] for _ in "mv")
        self.t = 0

    def __call__(self, grads):
        """The update of every tensor, and the root mean square of ``g / sqrt(v)``."""
        self.t += 1
        updates, surprises = [], []
        for m, v, g in zip(self.m, self.v, grads, strict=True):
            m.mul_(0.9).add_(g, alpha=0.1)
            v.mul_(0.99).addcmul_(g, g, value=0.01)
            second = v / (1 - 0.99**self.t)
            updates.append(m / (1 - 0.9**self.t) / (second.sqrt() + 1e-8))
            surprises.append(float((g * g / second.clamp(min=1e-16)).mean().sqrt()))
        return updates, surprises


def follow_updates(name, rule, steps=STEPS, weights=None, **options):
    """Steps of AdamW under a method; ``rule(updates, surprises, weights)`` scales the updates."""
    params = parameters() if weights is None else [nn.Parameter(w.clone()) for w in weights]
    optimizer = torch.optim.AdamW(params, lr=0.02, betas=(0.9, 0.99), weight_decay=0.0)
    clipper = cliplab.create(name, params, **options)
    clipper.attach(optimizer)
    expected, adam = [p.detach().clone() for p in params], Adam(SHAPES)
    for grads in stream(steps):
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        optimizer.step()
        updates, surprises = adam(grads)
        factors = rule(updates, surprises, expected)
        for w, u, factor in zip(expected, updates, factors, strict=True):
            w.sub_(u * factor, alpha=0.02)
        torch.testing.assert_close([p.detach() for p in params], expected, rtol=1e-5, atol=1e-7)
    assert 0 < int(clipper.history.clipped.sum()) < clipper.history.clipped.numel()


def test_update_rms():
    follow_updates(
        "update_rms",
        lambda updates, _, w: [
            1 / max(1.0, float(u.square().mean().sqrt()) / 0.8) for u in updates
        ],
        threshold=0.8,
    )


def test_stable_adamw():
    follow_updates("stable_adamw", lambda _, surprises, w: [1 / max(1.0, s) for s in surprises])


def test_update_history():
    norms = []

    def rule(updates, _, weights):
        norm, last = whole(updates), norms[-128:]
        norms.append(norm)
        if len(last) < 64:
            return [1.0, 1.0]
        limit = np.mean(last) + 3.0 * max(np.std(last), 1e-6)
        return [min(1.0, limit / norm)] * 2

    follow_updates("update_history", rule, steps=200, k=3.0)


def test_lamb_trust_leaves_weights_of_zero_free():
    def rule(updates, _, weights):
        norms = [(float(w.norm()), float(u.norm())) for w, u in zip(weights, updates, strict=True)]
        return [min(1.0, w / u) if w > 0 and u > 0 else 1.0 for w, u in norms]

    start = [0.3 * parameters()[0].detach(), torch.zeros(3, dtype=torch.float64)]
    follow_updates("lamb_trust", rule, weights=start)
