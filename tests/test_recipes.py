"""The recipes' own code, executed: every library's line gives the gradients that stand there."""

import re
from pathlib import Path

import numpy as np
import pytest
from needs import need

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
PAGE = (RECIPES / "other_libraries.md").read_text("utf-8")
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


def run(library, line):
    """Clipped gradients of w and b, by the page's blocks and one of its lines."""
    scope = {}
    exec(THE_GRADIENT, scope)
    imports = re.compile(rf"^import {MODULES[library]}\b", re.MULTILINE)
    (block,) = filter(imports.search, LIBRARIES)
    exec(block, scope)
    exec(line, scope)
    names, sign = (("w", "b"), -1) if library == "Keras" else (("gw", "gb"), 1)
    return [sign * np.asarray(scope[name], dtype=np.float64) for name in names]


def test_the_page_tells_of_every_library_and_rule():
    libraries = {line.values[1] for line in LINES}
    assert libraries == set(MODULES)
    assert (len(RULES), len(LINES)) == (6, 24)


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


def test_the_blocks_on_attaching_run_one_after_the_other():
    scope = {}
    blocks = BLOCKS.findall((RECIPES / "attaching.md").read_text("utf-8"))
    assert len(blocks) == 6
    for block in blocks:
        exec(block, scope)
    assert scope["scaler"].get_scale() == 1024.0
    assert len(scope["fresh"].state) == 4
