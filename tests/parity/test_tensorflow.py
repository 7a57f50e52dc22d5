"""TensorFlow's forms and Keras's arguments for clipping, by themselves, on random tensors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making import with_gradients
from needs import need

import cliplab
from cliplab import Clipper

tf: Any
keras: Any

SHAPES = [(), (3,), (4, 2), (2, 3, 4), (1, 5), (0, 2)]
seeds = st.integers(0, 2**31)
scales = st.integers(-8, 8).map(lambda power: 10.0**power)
ratios = st.floats(1e-3, 1e3)
bounds = st.integers(-30, 30).map(lambda tenths: tenths / 10)


@pytest.fixture(scope="module", autouse=True)
def _peers():
    """Imported for five seconds by the process that runs these tests, not by all that list them."""
    global tf, keras
    tf, keras = need("tensorflow", "parity"), need("keras", "parity")


def draw(seed, scale=1.0, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator) for shape in shapes]


def agree(ours, theirs, rtol=1e-5):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, torch.from_numpy(np.array(b)), rtol=rtol, atol=0)


def norm_of(tensors):
    return torch.cat([t.reshape(-1) for t in tensors]).norm().item()


@given(seeds, scales, ratios)
def test_clip_by_global_norm(seed, scale, ratio):
    ours = draw(seed, scale)
    limit = ratio * norm_of(ours)
    theirs, norm = tf.clip_by_global_norm([tf.constant(t.numpy()) for t in ours], limit)
    agree([cliplab.clip_by_global_norm_(ours, limit)], [norm])
    agree(ours, theirs)


@given(seeds, ratios, ratios)
def test_clip_by_global_norm_with_a_norm_measured_before(seed, limit, use_norm):
    ours = draw(seed)
    tensors = [tf.constant(t.numpy()) for t in ours]
    theirs, norm = tf.clip_by_global_norm(tensors, limit, use_norm=tf.constant(use_norm))
    agree([cliplab.clip_by_global_norm_(ours, limit, use_norm)], [norm])
    agree(ours, theirs)


@given(seeds, scales, ratios, st.sampled_from([None, 0, -1, (0, 1), (-1, 0)]))
def test_clip_by_norm(seed, scale, ratio, axes):
    for tensor in draw(seed, scale, [s for s in SHAPES if axes is None or len(s) > 1]):
        limit = ratio * scale
        theirs = tf.clip_by_norm(tf.constant(tensor.numpy()), limit, axes)
        cliplab.clip_by_norm_(tensor, limit, axes)
        agree([tensor], [theirs])


@given(seeds, scales, st.tuples(bounds, bounds).map(sorted))
def test_clip_by_value(seed, scale, ends):
    low, high = (scale * end for end in ends)
    for tensor in draw(seed, scale):
        theirs = tf.clip_by_value(tf.constant(tensor.numpy()), low, high)
        cliplab.clip_by_value_(tensor, low, high)
        agree([tensor], [theirs], rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite(bad):
    ours = [torch.tensor([3.0, bad]), torch.tensor([4.0])]
    tensors = [tf.constant(t.numpy()) for t in ours]
    by_norm, by_value = ([t.clone() for t in ours] for _ in range(2))
    theirs, _ = tf.clip_by_global_norm(tensors, 1.0)
    cliplab.clip_by_global_norm_(ours, 1.0)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    for tensor, other in zip(by_norm, tensors, strict=True):
        cliplab.clip_by_norm_(tensor, 1.0)
        np.testing.assert_allclose(tensor.numpy(), tf.clip_by_norm(other, 1.0).numpy())
    for tensor, other in zip(by_value, tensors, strict=True):
        cliplab.clip_by_value_(tensor, -1.0, 2.0)
        np.testing.assert_array_equal(tensor.numpy(), tf.clip_by_value(other, -1.0, 2.0).numpy())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [0.03, 1.0, 30.0])
@pytest.mark.parametrize(
    ("argument", "scope"),
    [("global_clipnorm", "global"), ("clipnorm", "tensor"), ("clipvalue", "element")],
)
@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_a_keras_optimizer_takes_the_same_steps(name, argument, scope, limit, seed):
    shapes = [(3,), (4, 2), (2, 3, 4)]
    weights = draw(seed, shapes=shapes)
    params = with_gradients(*weights, weights=weights)
    keras_defaults = {"initial_accumulator_value": 0.1, "eps": 1e-7} if name == "Adagrad" else {}
    optimizer = getattr(torch.optim, name)(params, lr=0.1, **keras_defaults)
    Clipper(params, limit, scope=scope).attach(optimizer)
    variables = [keras.Variable(w.numpy()) for w in weights]
    peer = getattr(keras.optimizers, name)(0.1, **{argument: limit})
    for step in range(5):
        grads = draw(1000 * seed + step, 10.0 ** (step - 2), shapes)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.clone()
        optimizer.step()
        peer.apply([keras.ops.convert_to_tensor(g.numpy()) for g in grads], variables)
    for p, variable in zip(params, variables, strict=True):
        torch.testing.assert_close(
            p.detach(), torch.from_numpy(variable.numpy()), rtol=1e-4, atol=1e-5
        )
