"""timm's clipping by its own code (``make peers`` installs it), on random parameters."""

import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from making import with_gradients
from needs import need

import cliplab
from cliplab import Clipper

INF, NAN = math.inf, math.nan
SHAPES = [(5, 4), (6,), (4, 3, 3), (7, 2, 3, 3), (2, 2, 2, 2, 2), ()]


@pytest.fixture(scope="module")
def timm():
    """Its module of clipping alone: what stands around it would import torchvision."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("timm", "timm.utils"):
            package = ModuleType(name)
            package.__path__ = [str(Path(place, *name.split("."))) for place in sys.path]
            patch.setitem(sys.modules, name, package)
        yield need("timm.utils.clip_grad", "parity")


def twins(seed=0, scale=1.0):
    """The same random parameters and gradients twice."""
    generator = torch.Generator().manual_seed(seed)
    grads = [scale * torch.randn(s, generator=generator) for s in SHAPES]
    weights = [torch.randn(s, generator=generator) for s in SHAPES]
    return (with_gradients(*grads, weights=weights) for _ in range(2))


@pytest.mark.parametrize("ratio", [0.01, 1.0, 100.0])
def test_adaptive_clip_grad(timm, ratio):
    ours, theirs = twins()
    for params in (ours, theirs):
        with torch.no_grad():
            params[0][1] = 0
            params[0].grad[2, 0], params[3].grad[1, 1] = NAN, INF
    grads = [p.grad.clone() for p in ours]
    cliplab.adaptive_clip_(ours, ratio)
    timm.adaptive_clip_grad(theirs, ratio)
    for a, b, g in zip(ours, theirs, grads, strict=True):
        rows = g.isfinite().reshape(len(g), -1).all(1) if g.ndim > 1 else ...
        torch.testing.assert_close(a.grad[rows], b.grad[rows])
        assert torch.equal(a.grad.isfinite(), b.grad.isfinite())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_adaptive_clip_grad_at_every_scale(timm, seed, eps):
    for scale in (1e-8, 1e-3, 1.0, 1e6):
        ours, theirs = twins(seed, scale)
        cliplab.adaptive_clip_(ours, 0.1, eps)
        timm.adaptive_clip_grad(theirs, 0.1, eps)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [0.02, 1.0, 1e4])
@pytest.mark.parametrize(
    ("mode", "norm_type", "same"),
    [
        ("norm", 2.0, lambda ps, c: cliplab.clip_grad_norm_(ps, c)),
        ("norm", 1.0, lambda ps, c: cliplab.clip_grad_norm_(ps, c, norm_type=1.0)),
        ("norm", INF, lambda ps, c: cliplab.clip_grad_norm_(ps, c, norm_type=INF)),
        ("norm", 2.0, lambda ps, c: Clipper(ps, c).clip()),
        ("value", 2.0, lambda ps, c: cliplab.clip_grad_value_(ps, c)),
        ("agc", 2.0, lambda ps, c: cliplab.adaptive_clip_(ps, c)),
    ],
)
def test_dispatch_clip_grad(timm, mode, norm_type, same, value):
    ours, theirs = twins()
    same(ours, value)
    timm.dispatch_clip_grad(theirs, value, mode=mode, norm_type=norm_type)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-8)
