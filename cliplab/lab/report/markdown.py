"""Markdown as README and RESULTS.md have it: tables, links to notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Dictionaries as a Markdown table; nothing for no rows.

    >>> print(markdown([{"a": "x | y", "b": 1}]))
    | a | b |
    | --- | --- |
    | x \\| y | 1 |
    """
    rows = list(rows)
    if not rows:
        return ""
    columns = dict.fromkeys(column for row in rows for column in row)
    lines = [columns, ["---"] * len(columns), *([row.get(c, "–") for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = " ".join(str(value if value is not None else "").split())
    return text.replace("|", "\\|").replace("<", "&lt;")


def link(notebook: str, more: str = "", *, root: str = "") -> str:
    """A link to a notebook of the collection, called by its name and ``more``.

    ``root``: the way from the page's folder to the root, ``../`` from docs.
    """
    name = ", ".join(filter(None, [notebook, more]))
    return f"[{name}]({root}notebooks/{notebook}.ipynb)"
