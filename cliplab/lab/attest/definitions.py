"""Which definitions differ between two states of the package, and which of them a run entered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliplab.lab.runs.canonical import Definition
from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.faces import Package, Unit

CELLS = "cells"  # stands for the module of what a notebook's cells define


@dataclass(frozen=True)
class Change:
    """A definition that only one of two states has, as ``module:name``."""

    name: str
    definition: Definition
    path: str  # below the tree, or whole; "" in a cell

    def entered(self, trace: Mapping[str, Any]) -> bool:
        """Whether a run called the function, or imported the module of a statement or class."""
        if self.definition.kind != "function":
            return not self.path or self.path in trace["modules"]
        if not self.path:
            return self.definition.name in trace["cells"]
        return [self.path, self.definition.line] in trace["functions"]


def new_definitions(before: Closure, after: Closure) -> list[Change]:
    """Definitions that ``after`` reaches and that are nowhere in the package or cells before."""
    known = {(d.name, d.hash) for _, d in _everywhere(before)}
    return [c for c in _reached(after) if (c.definition.name, c.definition.hash) not in known]


def gone_definitions(before: Closure, after: Closure) -> list[Change]:
    """Definitions that ``before`` reaches and that are nowhere now, unless what is there tells."""
    known = {(d.name, d.hash) for _, d in _everywhere(after)}
    package = Package(after.folder)
    telling = {
        d.name
        for path, d in _everywhere(after)
        if path and d.kind != "import" and not package.makes_numbers(path)
    }
    return [
        c
        for c in _reached(before)
        if (c.definition.name, c.definition.hash) not in known and c.definition.name not in telling
    ]


def _reached(code: Closure) -> Iterator[Change]:
    for definition in code.root.definitions:
        yield Change(f"{CELLS}:{definition.name}", definition, "")
    for unit, form in code.units.items():
        tree = code.folder.parent
        path = unit.path.relative_to(tree) if unit.path.is_relative_to(tree) else unit.path
        for definition in form.definitions:
            name = f"{code.names[unit.path]}:{definition.name}"
            yield Change(name, definition, path.as_posix())


def _everywhere(code: Closure) -> Iterator[tuple[Path | None, Definition]]:
    package = Package(code.folder)
    for path in sorted(code.folder.rglob("*.py")):
        for definition in package.form(Unit(path)).definitions:
            yield path, definition
    for unit, form in code.units.items():
        if not unit.path.is_relative_to(code.folder):
            yield from ((None, definition) for definition in form.definitions)
    for definition in code.root.definitions:
        yield None, definition
