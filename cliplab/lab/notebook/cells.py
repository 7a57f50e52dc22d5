"""The cells of a notebook on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_notebook(directory: Path) -> Any:
    """The executed notebook beside a record."""
    import nbformat

    return nbformat.read(directory / "notebook.ipynb", as_version=4)


def title_and_question(notebook: Any) -> tuple[str, str]:
    """The first heading of a notebook, and the first question in its first cell, if any."""
    text = next((c.source for c in notebook.cells if c.cell_type == "markdown"), "")
    heading = re.search(r"^#+[ \t]+(.+)$", text, re.MULTILINE)
    title = heading[1].strip() if heading else next(iter(text.strip().splitlines()), "")
    sentences = re.split(r"(?<=[.:!?])\s+|\n\n", text.replace("*", "").replace("#", ""))
    question = next((s for s in sentences if s.endswith("?")), title)
    return title, " ".join(question.split())


def load_cells(notebook: Path) -> list[dict[str, Any]]:
    """The notebook's cells, each source as one string; ``ValueError`` if it is no notebook."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in cells]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"cannot read notebook {notebook}: {error}") from None


def is_parameters_cell(cell: Mapping[str, Any]) -> bool:
    """Whether papermill would take this cell for the parameters cell."""
    return cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])
