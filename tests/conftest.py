import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest

began = time.perf_counter()
import torch  # noqa: E402

PATIENCE = max(1.0, (time.perf_counter() - began) / 3)

torch.set_num_threads(1)
hypothesis.settings.register_profile("cliplab", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=500, print_blob=True)
hypothesis.settings.load_profile("cliplab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is slow comes first and goes to any worker; the rest stays with its file's fixtures."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if not any(map(item.get_closest_marker, ("slow", "xdist_group"))):
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session")
def patience() -> float:
    """How many times slower this machine is, now, than one that imports torch in 3 s; >= 1."""
    return PATIENCE


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def make_notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a small notebook: title, parameters cell, then the given code cells."""
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # kernels find cliplab

    def make(path: Path, *cells: str, parameters: str = "", title: str = "# A question?") -> Path:
        seeds = "first_seed: int = 0  # first seed [>= 0]\nn_seeds: int = 2  # seeds"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
        tagged = nbformat.v4.new_code_cell(
            f"{parameters}\n{seeds}", metadata={"tags": ["parameters"]}
        )
        code = [nbformat.v4.new_code_cell(cell) for cell in cells]
        notebook.cells = [nbformat.v4.new_markdown_cell(title), tagged, *code]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(nbformat.writes(notebook), encoding="utf-8")
        return path

    return make
