"""The benchmark's chaos (`python benchmarks/batch.py --only kills`): a piece, and all of it."""

import random
import sys

import pytest
from chaos import NONE_OF, kills


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
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    found = kills(tmp_path, n_kills=n_kills, seed=seed, size=size)
    assert found["kills"] == n_kills, seed
    assert found["runs"] >= size
    assert {name: found[name] for name in NONE_OF} == dict.fromkeys(NONE_OF, 0), seed
