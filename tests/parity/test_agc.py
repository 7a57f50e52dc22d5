"""Adaptive clipping against timm and optax themselves."""

import importlib
import importlib.util
import math
from pathlib import Path

import pytest
import torch
from making import with_gradients

import cliplab

INF, NAN = math.inf, math.nan


def peer(name):
    """A module of a library that need not be there, nor be whole where it is."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name}: {error}")


def timm_agc():
    """The one file of timm that is needed; all of it would need torchvision."""
    found = importlib.util.find_spec("timm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no timm")
    path = Path(found.submodule_search_locations[0]) / "utils" / "agc.py"
    specification = importlib.util.spec_from_file_location("agc", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("ratio", [0.01, 1.0, 100.0])
def test_timm_itself(ratio):
    timm = timm_agc()
    shapes = [(5, 4), (6,), (4, 3, 3), (7, 2, 3, 3), (2, 2, 2, 2, 2), ()]
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(s, generator=generator) for s in shapes]
    weights = [torch.randn(s, generator=generator) for s in shapes]
    weights[0][1] = 0
    grads[0][2, 0], grads[3][1, 1] = NAN, INF
    ours, theirs = (with_gradients(*grads, weights=weights) for _ in range(2))
    cliplab.adaptive_clip_(ours, ratio)
    timm.adaptive_clip_grad(theirs, ratio)
    for a, b, g in zip(ours, theirs, grads, strict=True):
        rows = g.isfinite().reshape(len(g), -1).all(1) if g.ndim > 1 else ...
        torch.testing.assert_close(a.grad[rows], b.grad[rows])
        assert torch.equal(a.grad.isfinite(), b.grad.isfinite())


def test_optax_itself():
    optax, np = peer("optax"), peer("numpy")
    generator = torch.Generator().manual_seed(0)
    grad, weight = (torch.randn(5, 4, generator=generator) for _ in range(2))
    params = with_gradients(grad, weights=[weight])
    cliplab.adaptive_clip_(params, 0.3)
    transform, columns = optax.adaptive_grad_clip(0.3), [weight.T.numpy()]  # (in, out)
    expected, _ = transform.update([grad.T.numpy()], transform.init(columns), columns)
    torch.testing.assert_close(params[0].grad.T, torch.from_numpy(np.array(expected[0])))
