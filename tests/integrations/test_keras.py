"""Keras on torch, in a process of its own: the backend stands once Keras has been imported."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from needs import REQUIRED

HERE = Path(__file__).parent


def run(*command, backend="torch"):
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    paths = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent)))
    done = subprocess.run(
        [sys.executable, *command],
        env=environment | {"PYTHONPATH": paths},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(
    find_spec("keras") is None and "integrations" not in REQUIRED,
    reason="needs cliplab[integrations]",
)
@pytest.mark.slow
class TestKeras:
    def test_on_torch(self):
        status, said = run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "keras_on_torch.py"
        )
        assert status == 0, said

    def test_on_another_backend_is_refused(self):
        code = "from cliplab.integrations.keras import Clip; Clip('autoclip')"
        status, said = run("-c", code, backend="jax" if find_spec("jax") else "tensorflow")
        assert status == 1
        assert "ValueError: Clip needs KERAS_BACKEND=torch, got" in said
