"""What a figure shows, in a sentence: from the labels that its code sets, and its section."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST = 320  # characters of a text
MOST_LABELS = 8  # labels of one kind

# Where a call says them: by keyword, or in its first argument.
KEYWORDS = {"title": "titles", "suptitle": "titles", "xlabel": "x", "ylabel": "y"}
METHODS = {"title": "titles", "set_title": "titles", "suptitle": "titles"}
METHODS |= {"set_xlabel": "x", "xlabel": "x", "supxlabel": "x"}
METHODS |= {"set_ylabel": "y", "ylabel": "y", "supylabel": "y"}


@dataclass
class Labels:
    """What the code of a figure calls its panels, its axes and its colours."""

    titles: dict[str, None] = field(default_factory=dict)
    x: dict[str, None] = field(default_factory=dict)
    y: dict[str, None] = field(default_factory=dict)
    colours: dict[str, None] = field(default_factory=dict)

    def add(self, kind: str, node: ast.expr) -> None:
        """A label, if it can be read off the code."""
        if text := _text(node):
            getattr(self, kind)[text] = None

    def __str__(self) -> str:
        x, y = _joined(self.x), _joined(self.y)
        axes = f"{y} against {x}" if x and y else y or (f"along {x}" if x else "")
        colours = f"colours: {_joined(self.colours)}" if self.colours else ""
        return "; ".join(filter(None, [_joined(self.titles), axes, colours]))


class Figures:
    """The figures of a notebook in their order; :meth:`alt` is asked once for each."""

    def __init__(self, cells: Sequence[Mapping[str, Any]]) -> None:
        self._cells = cells
        self._count = 0
        trees = [_parsed(cell) for cell in cells]
        self._trees = trees
        self._functions = {
            node.name: node
            for tree in trees
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        }

    def alt(self, place: int, shown: str = "") -> str:
        """The text of the next figure, of the cell at ``place``; ``shown``: its repr."""
        self._count += 1
        labels = Labels()
        _collect(self._trees[place], labels, self._functions, set())
        panels = re.search(r"with (\d+) Axes", shown)
        what = str(labels) or (f"{panels[1]} panels" if panels and panels[1] != "1" else "")
        where = self._section(place)
        told = f"Figure {self._count}" + (f", {where}" if where else "")
        text = ". ".join(filter(None, [f"{told}: {what}" if what else told, self._read(place)]))
        return text if len(text) <= MOST else f"{text[: MOST - 1]}…"

    def _section(self, place: int) -> str:
        """The heading that the cell stands under."""
        for cell in reversed(self._cells[: place + 1]):
            headings = re.findall(r"^#+[ \t]+(.+)$", _markdown(cell), re.MULTILINE)
            if headings:
                return plain(headings[-1]).rstrip("?.:")
        return ""

    def _read(self, place: int) -> str:
        """The first sentence on how to read it, where the next text is of that."""
        following = next((_markdown(c) for c in self._cells[place + 1 :] if _markdown(c)), "")
        found = re.match(r"\W*How to read\b[^.*]*[.:*]+\s*(.+?[.!?])(?:\s|$)", following, re.DOTALL)
        return plain(found[1]) if found else ""


def _markdown(cell: Mapping[str, Any]) -> str:
    return str(cell["source"]) if cell["cell_type"] == "markdown" else ""


def _parsed(cell: Mapping[str, Any]) -> ast.Module:
    """The code of a cell; nothing where it is not plain Python."""
    try:
        return ast.parse(cell["source"] if cell["cell_type"] == "code" else "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _collect(
    tree: ast.AST, labels: Labels, functions: Mapping[str, ast.FunctionDef], seen: set[str]
) -> None:
    """The labels of a tree, and of the notebook's functions that it calls, each one once."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "label":
                    labels.add("colours", value)
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in METHODS and node.args:
            labels.add(METHODS[name], node.args[0])
        if name == "set_axis_labels" and len(node.args) == 2:
            labels.add("x", node.args[0])
            labels.add("y", node.args[1])
        for keyword in node.keywords:
            if keyword.arg in KEYWORDS:
                labels.add(KEYWORDS[keyword.arg], keyword.value)
            elif keyword.arg == "label" and name == "colorbar":
                labels.add("colours", keyword.value)
        if name in functions and name not in seen:
            seen.add(name)
            _collect(functions[name], labels, functions, seen)


def _text(node: ast.expr) -> str:
    """A text of the code; what is put in while it runs is an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return plain(node.value)
    if isinstance(node, ast.JoinedStr):
        parts = [str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values]
        text = plain("".join(parts))
        return text if any(map(str.isalnum, text)) else ""
    if isinstance(node, ast.IfExp):
        return _text(node.body) or _text(node.orelse)
    return ""


def plain(text: str) -> str:
    """Without the marks of Markdown and TeX, in one line."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\\[A-Za-z]+|[$`*{}\\]", "", text)
    return " ".join(text.split())


def _joined(labels: Mapping[str, None]) -> str:
    shown = list(labels)[:MOST_LABELS]
    return ", ".join(shown) + (", …" if len(labels) > len(shown) else "")
