import gc
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
from needs import REQUIRED, need

began = time.perf_counter()
import torch  # noqa: E402

PATIENCE = max(1.0, (time.perf_counter() - began) / 3)

torch.set_num_threads(1)
gc.disable()  # until all tests are collected
# tensorboard imports tensorflow for its files, for five seconds, unless it is told to do without.
sys.modules["tensorboard.compat.notf"] = ModuleType("tensorboard.compat.notf")

hypothesis.settings.register_profile("cliplab", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile("cliplab")

# Keras has one backend a process: test_keras.py runs this file in a process of its own.
collect_ignore = ["integrations/keras_on_torch.py"] * (os.environ.get("KERAS_BACKEND") != "torch")

# Where tests start processes, each its own: any of them may go to any worker.
SCATTERED = (
    "tests/cli/",
    "tests/integrations/test_keras.py",
    "tests/lab/batch/",
    "tests/lab/executors/",
    "tests/lab/kernels/",
    "tests/test_fingerprints.py",
    "tests/test_notebooks.py",
    "tests/test_your_own_training.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is slow comes first, so that no worker ends alone with it."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What 13,000 tests are made of lives to the end: no garbage collection looks at it again."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile`` gives a worker a file's tests, for its fixtures; not the scattered."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            alone = nodeid.startswith(SCATTERED)
            return nodeid if alone else super()._split_scope(nodeid)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of this session's smoke runs: what one process has run, the others find done."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "smoke"


@pytest.fixture(scope="session")
def patience() -> float:
    """How many times slower this machine is, now, than one that imports torch in 3 s; >= 1."""
    return PATIENCE


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests of a process: Debian's chromium, driven by playwright."""
    playwright = need("playwright.sync_api", "browser")
    chromium = shutil.which("chromium")
    if chromium is None and "browser" not in REQUIRED:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a small notebook: title, parameters cell, then the given code cells."""
    from recording import write_notebook

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # kernels find cliplab
    return write_notebook
