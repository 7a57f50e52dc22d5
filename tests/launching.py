"""Real ranks for tests: processes that run the cases of ``clipper/ranks.py``."""

import contextlib
import json
import os
import signal
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
    """Run the cases on ``world`` ranks; the results of every rank.

    Where a rank is killed by a signal it is torch or gloo that crashed (nothing here is compiled):
    seen once in some hundred launches. Then all are started once more; a test that fails is not.
    """
    own = folder / f"{world}-{cases[0]}"
    own.mkdir()
    status, said = _run(own, "store", world, cases)
    if status < 0:
        print("a rank crashed, and all are started again:", said, sep="\n")
        status, said = _run(own, "store again", world, cases)
    assert status == 0, said
    return [json.loads((own / f"{rank}.json").read_text()) for rank in range(world)]


def _run(own, store, world, cases):
    """Exit status and output of a process that imports everything once and forks the ranks."""
    paths = os.pathsep.join(map(str, (HERE.parent, HERE)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore", HERE / "clipper" / "ranks.py"]
    ranks = subprocess.Popen(
        [*command, str(world), str(own / store), str(own), *cases],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = ranks.communicate(timeout=LONG)
    finally:
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(ranks.pid, signal.SIGKILL)
    return ranks.returncode, said
