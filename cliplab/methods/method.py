"""A method by name, and how a list of them reads."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cliplab.history import html_table

COLUMNS = 80  # of the table of all methods


@dataclass(frozen=True)
class Method:
    """A named method: what it does, where it comes from, and its own parameters with defaults.

    Args:
        name: what ``create`` calls it.
        summary: what it does, in a line.
        source: where it is published.
        build: makes the arguments of ``Clipper`` from the method's own.
    """

    name: str
    summary: str
    source: str
    build: Callable[..., dict[str, Any]] = field(repr=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """The method's own parameters and their defaults."""
        return {p.name: p.default for p in inspect.signature(self.build).parameters.values()}

    @property
    def defaults(self) -> str:
        """The parameters and their defaults, as they are written in a call."""
        return ", ".join(f"{name}={default!r}" for name, default in self.parameters.items())


def method(source: str) -> Callable[[Callable[..., dict[str, Any]]], Method]:
    """Make a method of the function that builds a clipper's arguments; its docstring is said."""

    def make(build: Callable[..., dict[str, Any]]) -> Method:
        return Method(build.__name__, (build.__doc__ or "").strip(), source, build)

    return make


class Methods(list[Method]):
    """A list of methods that reads as a table: name, what it does, parameters with defaults."""

    def __repr__(self) -> str:
        width = max((len(method.name) for method in self), default=0) + 2
        rows = []
        for method in self:
            texts = (method.summary, method.defaults)
            lines = [line for text in texts for line in textwrap.wrap(text, COLUMNS - width)]
            rows.append(method.name.ljust(width) + f"\n{' ' * width}".join(lines))
        return "\n".join(rows) or "[]"

    def _repr_html_(self) -> str:
        rows = [(m.name, m.summary, m.defaults, m.source) for m in self]
        return html_table(("name", "what it does", "parameters", "source"), rows, text=True)
