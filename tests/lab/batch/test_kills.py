"""The benchmark's chaos (`python benchmarks/batch.py --only kills`): a piece, and all of it."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by their environment in /proc")
@pytest.mark.parametrize(
    ("n_kills", "size", "seed"),
    [(4, 6, 1), pytest.param(100, 80, None, marks=pytest.mark.nightly)],
    ids=["few", "many"],
)
def test_random_kills_lose_nothing_run_nothing_twice_and_leave_nothing_behind(
    n_kills, size, seed, tmp_path
):
    path = Path(__file__).parents[3] / "benchmarks" / "batch.py"
    spec = importlib.util.spec_from_file_location("batch_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    batch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(batch)
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    found = batch.kills(tmp_path, n_kills=n_kills, seed=seed, size=size)
    assert found["kills"] == n_kills, seed
    assert found["runs"] >= size
    assert {name: found[name] for name in batch.NONE_OF} == dict.fromkeys(batch.NONE_OF, 0), seed
