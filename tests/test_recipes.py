"""The recipes' own code, executed: every library's line gives the gradients that stand there."""

import re
from pathlib import Path

import numpy as np
import pytest
from needs import need

import cliplab

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
TEXT = (RECIPES / "other_libraries.md").read_text("utf-8")
ATTACHING = (RECIPES / "attaching.md").read_text("utf-8")
PAGE, LOOPS = TEXT.split("## A training loop\n")
LOOPS, MEANINGS = LOOPS.split("## Where the meanings differ\n")
BLOCKS = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PREPARE, *RULES = re.split(r"^## (?!The gradient$)", PAGE, flags=re.MULTILINE)
THE_GRADIENT, *LIBRARIES = BLOCKS.findall(PREPARE)
MODULES = {"PyTorch": "torch", "cliplab": "cliplab", "TensorFlow": "tensorflow"}
MODULES |= {"Keras": "keras", "optax": "optax"}
LINES = [
    pytest.param(rule, library.partition(",")[0], line, id=f"{rule.splitlines()[0]}: {library}")
    for rule in RULES
    for library, line in re.findall(r"^\| (.+) \| `(.+)` \|$", rule, re.MULTILINE)
]
THE_DATA, *TRAINING = BLOCKS.findall(LOOPS)
_, *TRAINED = [
    [cell.strip("` ") for cell in line.split("|")[1:-1]]
    for line in re.findall(r"^\| (?!-).+\|$", LOOPS, re.MULTILINE)
]
TRAINERS = ("PyTorch", "TensorFlow", "Keras", "optax")
RUNS = [
    pytest.param(rule, library, place, weights, id=f"{rule}: {library}")
    for rule, *places, weights in TRAINED
    for library, place in zip(TRAINERS, places, strict=True)
    if place != "–"
]


def block_of(library, blocks):
    """The page's block that imports a library."""
    imports = re.compile(rf"^import {MODULES[library]}\b", re.MULTILINE)
    (block,) = filter(imports.search, blocks)
    return block


def run(library, line):
    """Clipped gradients of w and b, by the page's blocks and one of its lines."""
    scope = {}
    exec(THE_GRADIENT, scope)
    exec(block_of(library, LIBRARIES), scope)
    exec(line, scope)
    names, sign = (("w", "b"), -1) if library == "Keras" else (("gw", "gb"), 1)
    return [sign * np.asarray(scope[name], dtype=np.float64) for name in names]


def test_the_page_tells_of_every_library_and_rule():
    libraries = {line.values[1] for line in LINES}
    assert libraries == set(MODULES)
    assert (len(RULES), len(LINES)) == (6, 24)
    assert (len(TRAINED), len(RUNS)) == (3, 11)


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize(("rule", "library", "line"), LINES)
def test_every_line_gives_the_stated_gradients_and_cliplabs(rule, library, line):
    need(MODULES[library], "parity")
    stated = {}
    exec("; ".join(re.findall(r"`(g[wb] = .+?)`", rule)[:2]), stated)
    first = next(case.values for case in LINES if case.values[:2] == (rule, "cliplab"))
    got, ours = run(library, line), run(*first[1:])
    for gradient, own, name in zip(got, ours, ("gw", "gb"), strict=True):
        np.testing.assert_allclose(gradient, stated[name], rtol=0, atol=5.1e-4)
        np.testing.assert_allclose(gradient, own, rtol=1e-5)


def weights_of(scope):
    """The two of w and the one of b."""
    return np.concatenate(
        [np.ravel(a.detach() if hasattr(a, "detach") else a) for a in (scope["w"], scope["b"])]
    )


def train(library, place):
    """Weights w and b after the page's loop, with ``place`` where the first rule's stands."""
    first = TRAINED[0][1 + TRAINERS.index(library)]
    block = block_of(library, TRAINING)
    assert block.count(first) == 1
    scope = {}
    exec(THE_DATA, scope)
    exec(block.replace(first, place), scope)
    return weights_of(scope)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize(("rule", "library", "place", "weights"), RUNS)
def test_every_library_trains_to_the_stated_weights(rule, library, place, weights):
    need(MODULES[library], "parity")
    got = train(library, place)
    np.testing.assert_allclose(got, eval(weights), rtol=0, atol=5.1e-5)
    torchs = next(case.values[2] for case in RUNS if case.values[:2] == (rule, "PyTorch"))
    np.testing.assert_allclose(got, train("PyTorch", torchs), rtol=0, atol=2e-5)


def test_the_loop_with_an_attached_clipper_is_torchs():
    line, attached = TRAINED[0][1], "cliplab.Clipper([w, b], 1.0).attach(optimizer)"
    assert f"`{attached}`" in LOOPS
    block = block_of("PyTorch", TRAINING).replace(f"    {line}\n", "")
    block = block.replace("for _", f"import cliplab\n\n{attached}\nfor _")
    scope = {}
    exec(THE_DATA + block, scope)
    np.testing.assert_allclose(weights_of(scope), train("PyTorch", line), rtol=0, atol=2e-5)


def test_the_loop_is_clipped_at_first_and_not_at_last():
    counted = "norms.append(float(torch.nn.utils.clip_grad_norm_([w, b], 1.0)))"
    scope = {"norms": []}
    exec(THE_DATA + block_of("PyTorch", TRAINING).replace(TRAINED[0][1], counted), scope)
    stated = float(re.search(r"first gradient has norm ([\d.]+)", LOOPS)[1])
    assert scope["norms"][0] == pytest.approx(stated, abs=0.051)
    assert scope["norms"][-1] < 1


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_what_clip_by_norm_does_to_a_list():
    tf = need("tensorflow", "parity")
    scope = {}
    exec(block_of("TensorFlow", BLOCKS.findall(MEANINGS)), scope)
    np.testing.assert_allclose(scope["together"], [[0.6, 0.0], [0.0, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(np.stack(scope["one_by_one"]), np.eye(2), rtol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.clip_by_norm([tf.ones((2, 2)), tf.ones(1)], 1.0)


def test_the_blocks_on_attaching_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    blocks = BLOCKS.findall(ATTACHING)
    assert len(blocks) == 11
    for block in blocks:
        exec(block, scope)
    assert scope["scaler"].get_scale() == 1024.0
    assert len(scope["fresh"].state) == 4


@pytest.mark.parametrize("spoilt", ["model(x).", "model(float('nan') * x)."])
def test_a_guarded_step_is_taken_or_moves_nothing(spoilt):
    (block,) = blocks_of("A step that is skipped")
    scope = after_the_first_steps()
    before = state_of(scope)
    exec(block.replace("model(x).", spoilt), scope)
    assert (state_of(scope) == before) == ("nan" in spoilt)
    assert bool(scope["clipper"].history.skipped[-1]) == ("nan" in spoilt)


def test_a_scalers_overflow_is_no_error_attached_or_guarded():
    attached, by_hand = blocks_of("Mixed precision")
    scope = after_the_first_steps()
    before = state_of(scope)
    exec(overflowing(attached), scope)
    assert scope["clipper"].steps == 0
    exec(overflowing(by_hand), scope)
    assert scope["clipper"].history.skipped.tolist() == [True]
    assert scope["scaler"].get_scale() == 1024.0 / 4
    assert state_of(scope) == before


def test_a_scalers_overflow_is_an_error_by_hand_by_default():
    attached, by_hand = blocks_of("Mixed precision")
    scope = after_the_first_steps()
    exec(attached, scope)
    with pytest.raises(cliplab.NonFiniteGradientError):
        exec(overflowing(by_hand.replace(', nonfinite="skip"', "")), scope)


def blocks_of(section):
    """The blocks of a section on attaching."""
    return BLOCKS.findall(ATTACHING.split(f"## {section}\n")[1].split("\n## ")[0])


def after_the_first_steps():
    """What the page's first two blocks define: a model and an optimizer that has stepped."""
    scope = {}
    for block in BLOCKS.findall(ATTACHING)[:2]:
        exec(block, scope)
    return scope


def overflowing(block):
    """A block whose scaled loss is finite before it is scaled, and infinite afterwards."""
    return block.replace("scaler.scale(", "scaler.scale(1e38 * ")


def state_of(scope):
    """All numbers of the model and the optimizer."""
    moments = scope["optimizer"].state_dict()["state"].values()
    tensors = [*scope["model"].parameters(), *(t for held in moments for t in held.values())]
    return [t.tolist() for t in tensors]
