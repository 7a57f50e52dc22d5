"""Keras on torch: models that are fitted for real. ``test_keras.py`` runs it in its own process,
since another test may have imported Keras on another backend."""

import csv
import math
import re
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from needs import need
from refusing import BAD_CLIPPING

from cliplab import Clipper, NonFiniteGradientError

keras = need("keras", "integrations")
from cliplab.integrations.keras import Clip  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # Keras, of NumPy on tensors
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]
rng = np.random.default_rng(0)
X = rng.standard_normal((48, 4)).astype(np.float32)
Y = (4 * X.sum(1, keepdims=True)).astype(np.float32)
BAD = X.copy()
BAD[20] = np.nan
OPTIMIZERS = {
    "SGD": lambda **own: keras.optimizers.SGD(0.02, momentum=0.9, **own),
    "Adam": lambda **own: keras.optimizers.Adam(0.05, **own),
    "AdamW": lambda **own: keras.optimizers.AdamW(0.05, weight_decay=0.1, use_ema=True, **own),
}
KINDS = ("Sequential", "Functional", "subclass")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="tanh")
        self.out = keras.layers.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))


def make(optimizer="Adam", kind="Sequential", own=None, **compiled):
    keras.utils.set_random_seed(0)
    if kind == "subclass":
        model = Subclassed()
        model(X[:1])
    else:
        inputs = keras.Input((4,))
        layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)]
        if kind == "Sequential":
            model = keras.Sequential([inputs, *layers])
        else:
            model = keras.Model(inputs, layers[1](layers[0](inputs)))
    if isinstance(optimizer, str):
        optimizer = OPTIMIZERS[optimizer](**(own or {}))
    model.compile(optimizer, loss="mse", **compiled)
    return model


def fit(model, *callbacks, x=X, epochs=2, **settings):
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0} | settings
    return model.fit(x, Y, epochs=epochs, callbacks=[*callbacks], **settings)


def values(model):
    """Weights, moments and iterations."""
    return [v.value.detach().clone() for v in (*model.variables, *model.optimizer.variables)]


def assert_same(one, other, rtol=0.0, atol=0.0):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def columns(clip):
    history = clip.clipper.history
    return torch.stack([history.norm_before, history.threshold, history.factor])


RULES = {
    "global_clipnorm": {"scope": "global"},
    "clipnorm": {"scope": "tensor"},
    "clipvalue": {"scope": "element"},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
def test_weights_of_keras_own_clipping(rule, optimizer):
    own, ours = make(optimizer, own={rule: 0.25}), make(optimizer)
    clip = Clip(lambda model: Clipper(model, 0.25, **RULES[rule]))
    fit(own)
    fit(ours, clip)
    exact = rule == "clipvalue"  # Keras rescales by c / max(n, c), rounded elsewhere
    assert_same(values(own), values(ours), *((0, 0) if exact else (1e-4, 1e-6)))
    assert clip.clipper.history.clipped.any()
    plain = make(optimizer)
    fit(plain)
    assert not torch.allclose(values(plain)[0], values(ours)[0], rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(kind):
    clip = Clip("norm", threshold=0.25)
    model = make(kind=kind)
    fit(model, clip)
    assert len(clip.clipper.params) == len(model.trainable_variables) == 4
    assert len(clip.clipper.history) == 12
    assert clip.clipper.history.norm_after.max() <= 0.25001
    fit(model)
    assert len(clip.clipper.history) == 12


@pytest.mark.parametrize("rule", RULES)
def test_keras_own_clipping_left_on_is_a_warning(rule):
    with pytest.warns(UserWarning, match=rf"{rule}=1.0 clips, too.*leave {rule} out"):
        fit(make(own={rule: 1.0}), Clip("autoclip"))


@pytest.mark.parametrize(
    ("refused", "own", "compiled", "clipping"),
    [
        ("gradient_accumulation_steps", {"gradient_accumulation_steps": 2}, {}, ["norm"]),
        ("loss_scale_factor", {"loss_scale_factor": 8.0}, {}, ["norm"]),
        ("jit_compile", {}, {"jit_compile": True}, ["norm"]),
        ("another", {}, {}, ["norm", "norm"]),
        ('scope "unit"', {}, {}, ["agc"]),
    ],
)
def test_what_it_does_not_go_with_is_refused_by_name(refused, own, compiled, clipping):
    model = make(own=own, **compiled)
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"does not go with {refused}$"):
        fit(model, *map(Clip, clipping))
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize(("clipping", "arguments", "told"), BAD_CLIPPING)
def test_bad_clipping_is_refused_by_name(clipping, arguments, told):
    with pytest.raises((ValueError, TypeError), match=told):
        fit(make(), Clip(clipping, **arguments))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_is_not_finite_is_no_step(optimizer):
    model, clip = make(optimizer), Clip("norm", nonfinite="skip")
    seen = []
    states = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(values(model))
    )
    fit(model, clip, states, x=BAD, epochs=1)
    assert clip.clipper.history.skipped.nonzero().flatten().tolist() == [2]
    assert_same(seen[1], seen[2])
    assert model.optimizer.iterations.numpy() == 5
    assert all(value.isfinite().all() for value in values(model))
    left_out = make(optimizer)
    some = np.r_[0:16, 24:48]
    left_out.fit(X[some], Y[some], batch_size=8, shuffle=False, verbose=0, callbacks=[Clip("norm")])
    assert_same(values(left_out), values(model))


def test_a_step_that_is_not_finite_is_an_error_that_moves_nothing():
    model = make()
    with pytest.raises(NonFiniteGradientError, match="step 2"):
        fit(model, Clip("norm"), x=BAD)
    assert model.optimizer.iterations.numpy() == 2
    assert all(value.isfinite().all() for value in values(model))


class Stop(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [True, False])
def test_training_goes_on_from_keras_backup_bit_for_bit(kind, first, tmp_path):
    whole, whole_clip = make("AdamW", kind), Clip("autoclip", percentile=30)
    fit(whole, whole_clip, epochs=4)

    def callbacks():
        clip, backup = Clip("autoclip", percentile=30), keras.callbacks.BackupAndRestore(tmp_path)
        return [clip, backup] if first else [backup, clip]

    with pytest.raises(KeyboardInterrupt):
        fit(make("AdamW", kind), *callbacks(), Stop(2), epochs=4)
    model, again = make("AdamW", kind), callbacks()
    clip = again[not first]
    fit(model, *again, epochs=4)
    assert_same(values(whole), values(model))
    assert clip.clipper.state_dict(plain=True) == whole_clip.clipper.state_dict(plain=True)
    assert clip.clipper.history.first_step == 12
    assert columns(clip).equal(columns(whole_clip)[:, 12:])


def test_training_goes_on_from_a_saved_model_bit_for_bit(tmp_path):
    whole, whole_clip = make(), Clip("autoclip", percentile=30)
    fit(whole, whole_clip)
    whole.save(tmp_path / "model.keras")
    fit(whole, whole_clip)
    assert len(whole_clip.clipper.history) == 24

    model, clip = keras.models.load_model(tmp_path / "model.keras"), Clip("autoclip", percentile=30)
    assert type(model.optimizer) is type(whole.optimizer)
    clip.set_model(model)
    model.load_weights(tmp_path / "model.keras")
    assert clip.clipper.steps == 12
    fit(model, clip)
    assert_same(values(whole), values(model))
    assert clip.clipper.state_dict(plain=True) == whole_clip.clipper.state_dict(plain=True)
    assert columns(clip).equal(columns(whole_clip)[:, 12:])


def test_weights_go_where_no_clip_is_and_come_from_there(tmp_path):
    model, clip = make(), Clip("autoclip")
    fit(model, clip)
    model.save_weights(tmp_path / "clipped.weights.h5")
    other = make()
    fit(other)
    other.load_weights(tmp_path / "clipped.weights.h5")
    assert_same(values(model), values(other))
    other.save_weights(tmp_path / "plain.weights.h5")
    model.load_weights(tmp_path / "plain.weights.h5")
    assert clip.clipper.steps == 12


def test_the_state_of_another_method_is_refused(tmp_path):
    model = make()
    fit(model, Clip("autoclip"))
    model.save_weights(tmp_path / "clipped.weights.h5")
    Clip("zclip").set_model(model)
    with pytest.raises(ValueError, match="differ in method"):
        model.load_weights(tmp_path / "clipped.weights.h5")


def test_fitting_again_goes_on_with_the_same_clip_and_begins_anew_with_another():
    model, clip = make(), Clip("autoclip")
    fit(model, clip)
    model.compile("sgd", loss="mse")
    fit(model, clip)
    assert clip.clipper.steps == len(clip.clipper.history) == 24
    other = Clip("zclip")
    fit(model, other)
    assert (clip.clipper.steps, other.clipper.steps) == (24, 12)
    fit(make(), clip)
    assert clip.clipper.steps == 12


def test_after_an_interruption_one_clipper_is_at_work():
    model, first, second = make(), Clip("norm"), Clip("norm")
    with pytest.raises(KeyboardInterrupt):
        fit(model, first, Stop(1))
    fit(model, second)
    assert (first.clipper.steps, second.clipper.steps) == (6, 12)
    assert "apply" not in vars(model.optimizer)


def test_an_epochs_logs_have_its_last_step(tmp_path):
    clip = Clip("autoclip")
    file = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit(make(), clip, file, validation_split=0.25).history
    norms = clip.clipper.history.norm_before
    assert history["clip/norm_before"] == norms[[4, 9]].tolist()
    rows = [*csv.DictReader((tmp_path / "log.csv").read_text().splitlines())]
    assert float(rows[1]["clip/norm_before"]) == norms[9]
    names = {"clip/norm_after", "clip/factor", "clip/threshold", "clip/clipped", "clip/skipped"}
    assert names <= history.keys()
    assert not math.isnan(statistics.fmean(history["val_loss"]))


def test_what_is_frozen_or_left_out_is_not_clipped():
    model = make()
    model.layers[0].trainable = False
    model.compile("sgd", loss="mse")
    clip = Clip("norm")
    fit(model, clip)
    assert clip.clipper.partition.names == [
        name for name, p in model.named_parameters() if p.requires_grad
    ]
    model, clip = make(), Clip(lambda model: Clipper(model, 0.1, exclude="*bias"))
    fit(model, clip)
    assert [p.ndim for p in clip.clipper.params] == [2, 2]


def test_under_a_loss_scale_sizes_are_true_and_an_overflow_is_no_step():
    scaled = keras.optimizers.LossScaleOptimizer(OPTIMIZERS["SGD"](), initial_scale=1024.0)
    model, clip = make(scaled), Clip("norm", threshold=0.25)
    plain, plain_clip = make("SGD"), Clip("norm", threshold=0.25)
    fit(model, clip)
    fit(plain, plain_clip)
    torch.testing.assert_close(columns(clip), columns(plain_clip))
    fit(model, clip, x=BAD)
    assert clip.clipper.steps == 22
    assert clip.clipper.history.skipped.sum() == 0
    assert float(scaled.dynamic_scale) == 256.0


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_lower_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        clip = Clip("norm", threshold=0.25)
        fit(make(), clip)
    finally:
        keras.config.set_dtype_policy("float32")
    assert len(clip.clipper.history) == 12
    assert clip.clipper.history.norm_after.max() <= 0.251


def test_a_loop_of_ones_own_is_clipped_too():
    model, clip = make("SGD"), Clip("norm", threshold=0.25)
    clip.set_model(model)
    clip.on_train_begin()
    for _ in range(3):
        model.zero_grad()
        (model(X) - torch.tensor(Y)).square().mean().backward()
        gradients = [v.value.grad for v in model.trainable_variables]
        with torch.no_grad():
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            model.optimizer.apply(gradients)
    assert clip.clipper.steps == 6
    clip.on_train_end()
    with torch.no_grad():
        model.optimizer.apply(gradients)
    assert clip.clipper.steps == 6


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="Clip needs KERAS_BACKEND=torch, got jax"):
        Clip("autoclip")


PAGE = Path(__file__).parents[2] / "docs" / "recipes" / "trainers.md"


def test_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8")
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    blocks = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    scope = {}
    for block in blocks.findall(text.split("\n## ")[0] + sections["Keras"]):
        exec(block, scope)
    assert scope["clip"].clipper.steps
