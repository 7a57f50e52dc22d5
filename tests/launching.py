"""Real ranks for tests: processes that run the cases of ``clipper/ranks.py``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from waiting import LONG

HERE = Path(__file__).parent

needs_gloo = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch without gloo",
)


def launch(folder, world, *cases):
    """Run the cases on ``world`` ranks; the results of every rank."""
    own = folder / f"{world}-{cases[0]}"
    own.mkdir()
    place = [str(own / "store"), str(own)]
    paths = os.pathsep.join(map(str, (HERE.parent, HERE)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                HERE / "clipper" / "ranks.py",
                str(rank),
                str(world),
                *place,
                *cases,
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [rank.communicate(timeout=LONG)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert not any(rank.returncode for rank in ranks), said
    return [json.loads((own / f"{rank}.json").read_text()) for rank in range(world)]
