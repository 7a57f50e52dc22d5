"""A training function of tests: a bowl over the rate, with explosions that a threshold prevents."""

from pathlib import Path

TOY = """
import math
import random
from pathlib import Path

from beside import bowl


def train(configurations, seeds):
    rows = []
    for c, seed in zip(configurations, seeds, strict=True):
        with Path(__file__).with_name("calls.txt").open("a") as file:
            file.write(f"{c['way']} {c['lr']} {c['threshold']} {seed}\\n")
        noise = random.Random(f"{seed} {c['way']}").gauss(0, 0.02)
        limit = math.inf if c["threshold"] is None else c["threshold"]
        gone = c["lr"] > 0.1 and limit > 3
        loss = math.nan if gone else min(bowl(c["lr"]) + noise, 4.9)
        rows.append({"val_loss": loss, "test_loss": loss, "diverged": gone, "extra": 1})
    return rows
"""
BESIDE = """
import math


def bowl(lr):
    return 2 + (math.log10(lr) + 0.5) ** 2
"""


def write_toy(folder: Path, code: str = TOY, name: str = "train.py") -> Path:
    """Write the function, and what it imports, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "beside.py").write_text(BESIDE)
    (folder / name).write_text(code)
    return folder / name


def calls(folder: Path) -> list[str]:
    """The runs that the function was asked for, in order."""
    file = folder / "calls.txt"
    return file.read_text().splitlines() if file.exists() else []
