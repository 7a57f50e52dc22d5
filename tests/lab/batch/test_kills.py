"""A short piece of the benchmark's chaos (`python benchmarks/batch.py --only kills`)."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by their environment in /proc")
def test_random_kills_lose_nothing_run_nothing_twice_and_leave_nothing_behind(tmp_path):
    path = Path(__file__).parents[3] / "benchmarks" / "batch.py"
    spec = importlib.util.spec_from_file_location("batch_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    batch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(batch)
    found = batch.kills(tmp_path, n_kills=4, seed=1, size=6)
    assert found["kills"] == 4
    assert found["runs"] >= 6
    assert {name: found[name] for name in batch.NONE_OF} == dict.fromkeys(batch.NONE_OF, 0)
