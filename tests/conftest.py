import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("cliplab", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.load_profile("cliplab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first, so that no worker ends alone with it."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


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
