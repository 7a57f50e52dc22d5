"""optax's clipping transformations, by optax itself, on random trees."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from making import with_gradients
from needs import need

import cliplab

optax: Any
jnp: Any

# Few shapes: jax compiles for each. Units are those that are a slice in both: optax takes three
# axes, and axes of length 1, for one vector.
UNITS = [(3,), (4, 3), (2, 3, 2, 4), (3, 2, 2, 2, 2)]
SHAPES = [*UNITS, (), (1, 3), (2, 1, 4)]
scale = st.integers(-8, 8).map(lambda power: 10.0**power)
ratio = st.floats(1e-3, 1e3)


@pytest.fixture(scope="module", autouse=True)
def _peers():
    """Imported by the process that runs these tests, not by all that list them."""
    global optax, jnp
    optax, jnp = need("optax", "parity"), need("jax.numpy", "parity")


@st.composite
def trees(draw, shapes=SHAPES):
    """Gradients and weights of one to five tensors, each of its own scale."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    chosen = draw(st.lists(st.sampled_from(shapes), min_size=1, max_size=5))
    random = [[torch.randn(s, generator=generator) for s in chosen] for _ in range(2)]
    return [[draw(scale) * t for t in tensors] for tensors in random]


def by_optax(transform, grads, weights=None):
    leaves = {str(i): g.numpy() for i, g in enumerate(grads)}
    params = weights and {str(i): w.numpy() for i, w in enumerate(weights)}
    out, _ = transform.update(leaves, transform.init(leaves), params)
    return [torch.from_numpy(np.array(out[str(i)])) for i in range(len(grads))]


def agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-30)


def clipped(method, grads, weights=None, **arguments):
    params = with_gradients(*grads, weights=weights)
    cliplab.create(method, params, **arguments).clip()
    return [p.grad for p in params]


@given(trees(), ratio)
def test_clip_by_global_norm(tree, c):
    grads, _ = tree
    c *= torch.cat([g.reshape(-1) for g in grads]).norm().item()
    theirs = by_optax(optax.clip_by_global_norm(c), grads)
    agree(clipped("norm", grads, threshold=c), theirs)
    cliplab.clip_by_global_norm_(grads, c)
    agree(grads, theirs)


@given(trees(), ratio)
def test_clip(tree, c):
    grads, _ = tree
    c *= max(g.abs().max().item() for g in grads)
    theirs = by_optax(optax.clip(c), grads)
    agree(clipped("value", grads, threshold=c), theirs)
    cliplab.clip_by_value_(grads, -c, c)
    agree(grads, theirs)


@given(trees(), scale, ratio)
def test_clip_by_block_rms(tree, power, c):
    grads, _ = tree
    theirs = by_optax(optax.clip_by_block_rms(c * power), grads)
    agree(clipped("block_rms", grads, threshold=c * power), theirs)


def flax(tensors):
    """PyTorch's ``(out, in, ...)`` as Flax's ``(..., in, out)``."""
    return [t.permute(*range(2, t.ndim), 1, 0) if t.ndim > 1 else t for t in tensors]


@given(trees(UNITS), ratio, st.sampled_from([1e-3, 1e-6, 1.0]))
def test_adaptive_grad_clip(tree, c, eps):
    grads, weights = tree
    theirs = by_optax(optax.adaptive_grad_clip(c, eps), flax(grads), flax(weights))
    params = with_gradients(*grads, weights=weights)
    cliplab.adaptive_clip_(params, c, eps)
    agree(flax([p.grad for p in params]), theirs)
    agree(flax(clipped("agc", grads, weights, ratio=c, eps=eps)), theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_half_types(dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    grads = [torch.randn(s, generator=generator).to(dtype) for s in ((5, 3), (7,))]
    ours = clipped("norm", grads, threshold=1.0)
    name = str(dtype).removeprefix("torch.")
    as_jax = [jnp.asarray(g.float().numpy()).astype(name) for g in grads]
    out, _ = optax.clip_by_global_norm(1.0).update(as_jax, None)
    for a, b in zip(ours, out, strict=True):
        theirs = torch.from_numpy(np.array(b.astype("float32")))
        torch.testing.assert_close(a.float(), theirs, rtol=4 * torch.finfo(dtype).eps, atol=0)
