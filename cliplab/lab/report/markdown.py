"""Markdown as README and RESULTS.md have it: tables and links; and links led elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

CODE = (
    r"(?P<code>^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?P<ticks>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=ticks)(?!`))"
)
FORMULA = (
    r"\$\$(?P<display>(?:\\.|[^$\\])+)\$\$"
    r"|(?P<environment>\\begin\{(?P<name>\w+\*?)\}.*?\\end\{(?P=name)\})"
    r"|\$(?P<inline>(?=\S)(?:(?!\n\n)(?:\\.|[^$\\`]))+(?<=\S))\$(?!\d)"
)
_LABEL = r"(?P<label>(?:`[^`\n]*`|\\.|\[[^\[\]]*\]|[^\[\]\\`])*)"
_LINK = rf"\[{_LABEL}\]\((?!\w+:)(?P<target>[^)\s]+)\)"
_LINKS = re.compile(rf"{CODE}|{FORMULA}|\\[\[\]]|{_LINK}", re.DOTALL | re.MULTILINE)


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


def short_links(notebooks: Iterable[str], root: str = "") -> str:
    """Notebooks by their numbers; ``root`` leads from the page's folder to the root."""
    return ", ".join(
        f"[{name.partition('_')[0]}]({root}notebooks/{name}.ipynb)" for name in notebooks
    )


def relinked(text: str, lead: Callable[[str, str], str]) -> str:
    """Markdown with its links as ``lead(label, target)`` writes them, but for those to a scheme.

    Code and formulas stay as they are.

    >>> relinked("[a](b.md), `c[0](d)`", lambda label, target: f"[{label}](../{target})")
    '[a](../b.md), `c[0](d)`'
    """

    def led(found: re.Match[str]) -> str:
        if found["target"] is None:
            return found[0]
        return lead(relinked(found["label"], lead), found["target"])

    return _LINKS.sub(led, text)
