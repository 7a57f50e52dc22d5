"""A notebook on disk: the one reader, and what its cells say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook's JSON, each text as one string; ``ValueError`` if it is no notebook.

    Without nbformat, which loads slowly.
    """
    try:
        notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            _join_lines(cell)
        return notebook
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot read notebook {path}: {error}") from None


def _join_lines(cell: dict[str, Any]) -> None:
    """On disk, a text may be a list of its lines."""
    cell["source"] = "".join(cell["source"])
    bundles = list(cell.get("attachments", {}).values())
    for output in cell.get("outputs", []):
        if "text" in output:
            output["text"] = "".join(output["text"])
        bundles.append(output.get("data", {}))
    for bundle in bundles:
        for kind, content in bundle.items():
            if isinstance(content, list) and not kind.endswith("json"):
                bundle[kind] = "".join(content)


def load_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of :func:`read_notebook`."""
    cells: list[dict[str, Any]] = read_notebook(path)["cells"]
    return cells


def is_parameters_cell(cell: Mapping[str, Any]) -> bool:
    """Whether papermill would take this cell for the parameters cell."""
    return cell["cell_type"] == "code" and "parameters" in cell["metadata"].get("tags", [])


def title_and_question(notebook: Mapping[str, Any]) -> tuple[str, str]:
    """The first heading of a notebook, and the first question in its first cell, if any.

    The notebook: of :func:`read_notebook`, or nbformat's.
    """
    cells = notebook["cells"]
    text = next((cell["source"] for cell in cells if cell["cell_type"] == "markdown"), "")
    heading = re.search(r"^#+[ \t]+(.+)$", text, re.MULTILINE)
    title = heading[1].strip() if heading else next(iter(text.strip().splitlines()), "")
    sentences = re.split(r"(?<=[.:!?])\s+|\n\n", text.replace("*", "").replace("#", ""))
    question = next((s for s in sentences if s.endswith("?")), title)
    return title, " ".join(question.split())
