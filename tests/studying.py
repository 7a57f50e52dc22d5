"""Studies of tests: two ways on a surface that is drawn, not trained, and what is said of them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cliplab.lab.claims import Claim
from cliplab.lab.study import Log, Space, Study

Row = dict[str, Any]
CHANCE, MARGIN = 4.0, 0.1


def surface(
    gain: float = 0.0, sd: float = 0.05, fails: float = 0.0, handicap: float = 0.2, **gains: float
) -> Callable[[list[Row], list[int]], list[Row]]:
    """A ``train``: norm is better than none by ``gain``, and none fails in a share of its runs.

    A bowl over the logarithm of the rate; a run's noise is that of its seed and way. ``gains``: by
    how much other ways are better than none.
    """
    gains = {"norm": gain, **gains}

    def train(configurations: list[Row], seeds: list[int]) -> list[Row]:
        rows = []
        for c, seed in zip(configurations, seeds, strict=True):
            noise = np.random.default_rng([seed, *c["way"].encode()])
            loss = 2 + (math.log10(c["lr"]) + 0.5) ** 2 + sd * noise.standard_normal()
            loss -= gains.get(c["way"], 0.0)
            gone = c["way"] == "none" and noise.random() < fails
            loss = CHANCE if gone else float(loss)
            early = CHANCE if gone else loss + handicap
            measured = {"val_loss": loss, "test_loss": loss, "diverged": gone}
            rows.append(measured | {"early_val_loss": early, "early_test_loss": early})
        return rows

    return train


def study(train: Any = None, **changes: Any) -> Study:
    """Norm against none, the control is none at its earlier checkpoint."""
    said = {
        "space": Space(lr=Log(0.01, 10.0), threshold=Log(0.1, 10.0, open_high=True)),
        "ways": {"none": ["lr"], "norm": ["lr", "threshold"]},
        "handicaps": {"none, early": "none"},
        "versus": [("norm", "none")],
        "chance": CHANCE,
    }
    return Study("toy", train or surface(), **(said | changes))


def comparison(**changes: Any) -> Claim:
    """The claim that the study answers."""
    said = {
        "id": "toy_norm",
        "kind": "comparison",
        "notebook": "01_toy",
        "question": "Does clipping the norm help where x < y | z?",
        "study": "toy",
        "first": "norm",
        "rival": "none",
        "control": "none, early",
        "margin": MARGIN,
        "unit": "nats",
        "margin_reason": "the spread of seeds",
        "source": "Nobody 2013",
        "literature": "half a nat, table 2",
        "counter": "a larger model",
    }
    return Claim(**(said | changes))


def demonstration(**changes: Any) -> Claim:
    """Two arms at a setting that was chosen."""
    said = {
        "id": "shown",
        "kind": "demonstration",
        "notebook": "01_toy",
        "statement": "Clipping is better at ten times the rate",
        "metric": "loss",
        "better": "lower",
        "first": "norm",
        "rival": "none",
        "unit": "nats",
        "chosen": "none fails there",
        "source": "Nobody 2013",
        "literature": "no number given",
    }
    return Claim(**(said | changes))


def identity(**changes: Any) -> Claim:
    """A column that is true in every row of its arms."""
    said = {
        "id": "same",
        "kind": "identity",
        "notebook": "01_toy",
        "statement": "Nothing changes",
        "metric": "same",
        "arms": ("huge", "none"),
        "source": "algebra",
    }
    return Claim(**(said | changes))


def share(**changes: Any) -> Claim:
    """In how many rows of an arm a column is true."""
    said = {
        "id": "often",
        "kind": "share",
        "notebook": "01_toy",
        "statement": "Errors that are seen",
        "metric": "seen",
        "arms": ("error",),
        "unit": "errors",
        "chosen": "errors that we thought of",
        "source": "Nobody 2013",
        "literature": "no number given",
    }
    return Claim(**(said | changes))


def as_toml(*claims: Claim, family: int = 1) -> str:
    """The claims.toml that holds them."""
    lines = [f"family = {family}"]
    for claim in claims:
        lines.append(f"[{claim.id}]")
        for key, value in claim.registered().items():
            if value not in ("", ()):
                text = value if isinstance(value, int | float) else _quoted(value)
                lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"


def _quoted(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def on_csv(rows: list[Row]) -> list[Row]:
    """The rows as they come back from a published file."""
    from cliplab.lab.runs.csvrows import read_rows, write_rows

    return read_rows(write_rows(rows))
