"""The page of mistakes, executed: every block says what stands below it, and nothing else."""

import builtins
import re
import warnings
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "mistakes.md").read_text("utf-8")
PREPARE, *BLOCKS = re.findall(
    r"^```python\n(.*?)^```$(?:\n\n> (\w+): ([^\n]+)$)?", PAGE, re.MULTILINE | re.DOTALL
)


def test_the_page_tells_what_its_blocks_say():
    assert len([kind for _, kind, _ in BLOCKS if kind]) == 8
    assert PAGE.count("\n> ") == 8


@pytest.mark.parametrize(("block", "kind", "message"), BLOCKS)
def test_every_block_says_what_stands_below_it(block, kind, message):
    scope = {}
    exec(PREPARE[0], scope)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if kind.endswith("Error"):
            with pytest.raises(getattr(builtins, kind), match=re.escape(message)):
                exec(block, scope)
        else:
            exec(block, scope)
    said = [str(w.message) for w in said]
    assert len(said) == (kind == "UserWarning")
    assert all(text.startswith(message) for text in said)
