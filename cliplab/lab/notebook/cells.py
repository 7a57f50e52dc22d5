"""A notebook on disk: the one reader, and what its cells say."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook's JSON, each text as one string; ``ValueError`` if it is no notebook.

    Without nbformat, which loads slowly, but for a notebook of before version 4.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe, from which nothing may ever come
            raise ValueError("it is no file")
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            raise ValueError("the file is empty")
        notebook = json.loads(text)
        if isinstance(notebook, dict) and "worksheets" in notebook:
            notebook = _upgraded(text)
        _check(notebook)
        for cell in notebook["cells"]:
            _join_lines(cell)
        return dict(notebook)
    except OSError as error:
        raise ValueError(f"cannot read notebook {path}: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"cannot read notebook {path}: {error}") from None


def _upgraded(text: str) -> Any:
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return json.loads(nbformat.writes(nbformat.reads(text, as_version=4)))
    except Exception as error:  # of any kind, for what is of no version
        raise ValueError(f"of a version before 4, and not to be converted: {error}") from None


def _check(notebook: Any) -> None:
    """``ValueError`` where the parts are not of the kinds that papermill takes for granted."""
    _expect(notebook, dict, "the file")
    for part, kind in (("nbformat", int), ("metadata", dict), ("cells", list)):
        _expect(notebook.get(part), kind, part)
    if notebook["nbformat"] != 4:
        raise ValueError(f"expected nbformat 4, got {notebook['nbformat']}")
    for number, cell in enumerate(notebook["cells"], 1):
        where = f"cell {number}"
        _expect(cell, dict, where)
        parts = {"cell_type": str, "metadata": dict, "source": (str, list)}
        if cell.get("cell_type") == "code":
            parts["outputs"] = list
        for part, kinds in parts.items():
            _expect(cell.get(part), kinds, f"{part} of {where}")
        _expect(cell["metadata"].get("tags", []), list, f"tags of {where}")
        for output in cell.get("outputs", []):
            _expect(output, dict, f"an output of {where}")


def _expect(found: object, kind: Any, what: str) -> None:
    if not isinstance(found, kind) or isinstance(found, bool):
        kinds = {dict: "a JSON object", list: "a list", int: "a number", str: "a text"}
        expected = kinds.get(kind, "a text or a list of its lines")
        raise ValueError(f"{what}: expected {expected}, got {str(found)[:40]!r}")


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


def tagged(cells: Sequence[Mapping[str, Any]], tag: str) -> int | None:
    """Where the first cell with a tag is: the one that papermill goes by, whatever its kind."""
    found = (i for i, cell in enumerate(cells) if tag in cell["metadata"].get("tags", []))
    return next(found, None)


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
