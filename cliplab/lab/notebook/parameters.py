"""The parameters of a notebook: which values it takes, and which papermill has to put in."""

from __future__ import annotations

import ast
import json
import keyword
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from cliplab.lab.notebook.cells import read_notebook, tagged
from cliplab.lab.notebook.declarations import (
    foreign_parameters,
    literals,
    parse_parameters,
    type_name,
)
from cliplab.lab.notebook.kernel import is_python, language_of
from cliplab.lab.notebook.syntax import parsed
from cliplab.lab.notebook.values import TYPES, Parameter, coerce, same


@dataclass(frozen=True)
class Signature:
    """What a notebook declares, and what that means for papermill.

    ``written``: the JSON values that its parameters have in the notebook. ``injected``: those of
    them that papermill once put in, and that go if it puts in others. ``after``: the cells that run
    after that place. ``open``: no cell declares anything, so that any name they have may be meant.
    """

    parameters: Mapping[str, Parameter]
    written: Mapping[str, Any] = field(default_factory=dict)
    injected: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    open: bool = False
    python: bool = True

    @property
    def defaults(self) -> dict[str, Any]:
        """The values that are known before the notebook runs."""
        return {name: p.default for name, p in self.parameters.items() if not p.computed}

    def typed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as the declared types; ``ValueError`` names what is unknown or ill."""
        typed = {name: coerce(self._parameter(name), value) for name, value in values.items()}
        return {name: _whole(name, value) for name, value in typed.items()}

    def _parameter(self, name: str) -> Parameter:
        if name in self.parameters:
            return self.parameters[name]
        if self.python and not self.open:
            known = ", ".join(self.parameters) or "none"
            raise ValueError(f"unknown parameter {name!r}; declared: {known}")
        valid = str.isidentifier if self.python else re.compile(r"[^\W\d][\w.]*").fullmatch
        if not valid(name) or (self.python and keyword.iskeyword(name)):
            raise ValueError(f"parameter {name!r}: expected a name of the notebook's language")
        if not any(name in source for source in self.after):
            raise ValueError(f"parameter {name!r}: no cell of the notebook uses it")
        return Parameter(name)

    def given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Of a run's values, those that papermill has to put in, since the notebook has others.

        ``ValueError``: the notebook overwrites one of them before it reads it.
        """
        missing = object()
        given = {
            name: value
            for name, value in values.items()
            if (had := self.written.get(name, missing)) is missing or not same(value, had)
        }
        lost = overwriting(self.after) if given and self.python else {}
        for name in given.keys() & lost.keys():
            why = "tag that cell `parameters`" if self.open else "its value would be lost"
            raise ValueError(f"parameter {name}: the notebook sets it again, {lost[name]!r}: {why}")
        return {**self.injected, **given} if given else {}


def read_signature(path: Path, python: bool | None = None) -> Signature:
    """The signature of a notebook, ``python`` or as it says; ``ValueError`` names what is wrong.

    The parameters cell is papermill's: the first that is tagged so.
    """
    notebook = read_notebook(path)
    cells = notebook["cells"]
    sources = [cell["source"] if cell["cell_type"] == "code" else "" for cell in cells]
    at, again = tagged(cells, "parameters"), tagged(cells, "injected-parameters")
    source = sources[at] if at is not None else ""
    place = again if again is not None else -1 if at is None else at
    after, injected = tuple(sources[place + 1 :]), sources[again] if again is not None else ""
    if not (is_python(language_of(notebook)) if python is None else python):
        return Signature(foreign_parameters(source), after=(source, *after), python=False)
    try:
        parameters, written = parse_parameters(source), literals(source)
        put_in = literals(injected)
        for name, value in put_in.items():
            known = replace(parameters.get(name, Parameter(name)), computed=False)
            parameters[name] = replace(known, default=coerce(known, value))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: parameters cell: {error}") from None
    return Signature(parameters, {**written, **put_in}, put_in, after, open=at is None)


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """The declared parameters by name, in order; ``ValueError`` names the line that is wrong."""
    return dict(read_signature(notebook).parameters)


@lru_cache
def overwriting(sources: tuple[str, ...]) -> dict[str, str]:
    """The names that cells give a value before anything reads them, and the line that does.

    Only what is certain: an assignment or import that runs in any case.

    >>> overwriting(("import os", "lr = 0.1", "n = n + 1"))
    {'os': 'import os', 'lr': 'lr = 0.1'}
    """
    found: dict[str, str] = {}
    read: set[str] = set()
    for source in sources:
        with suppress(SyntaxError):
            text, nodes = parsed(source)
            lines = text.splitlines()
            for node in nodes:
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    reads, sets = _reads_and_sets(node)
                    read |= reads - found.keys()
                    found |= dict.fromkeys(sets - read - found.keys(), lines[node.lineno - 1])
    return found


def _reads_and_sets(node: ast.stmt) -> tuple[set[str], set[str]]:
    """The names that a statement reads, quotes or sets perhaps; and those that it certainly sets.

    A text is taken for names, too: it may be a magic's line, or a key of ``globals()``.
    """
    if isinstance(node, ast.Import | ast.ImportFrom):
        return set(), {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    certain = isinstance(node, ast.Assign) or (isinstance(node, ast.AnnAssign) and node.value)
    reads: set[str] = set()
    sets: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            (sets if certain and isinstance(part.ctx, ast.Store) else reads).add(part.id)
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            reads.update(re.findall(r"\w+", part.value))
    return reads, sets


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Check a notebook's parameters against their annotations: ``check_parameters(globals())``.

    ``ValueError`` names a value of the wrong type or out of bounds, an empty list, or a name
    injected by papermill (which only warns) that the notebook does not declare.

    Args:
        namespace: the values by name.
    """
    annotations = dict(namespace.get("__annotations__", {}))
    cells = namespace.get("In", [])  # IPython's list of the cells run so far
    known = {name: Parameter(name, _type_name(kind)) for name, kind in annotations.items()}
    for source in cells:  # the one that reads as parameters has bounds
        known |= {n: replace(p, axis=True) for n, p in declared_in(source).items() if p.type}
    for name, parameter in known.items():
        if name in namespace and parameter.type.removesuffix(" | None") in TYPES:
            coerce(parameter, namespace[name])
    for before, source in pairwise(cells):
        if source.startswith("# Parameters\n"):
            declared = dict.fromkeys([*annotations, *declared_in(before)])
            for name in declared_in(source):
                if name not in declared:
                    listed = ", ".join(declared)
                    raise ValueError(f"unknown parameter {name}; declared: {listed}")


def declared_in(source: str) -> dict[str, Parameter]:
    """What a cell declares if it is read as a parameters cell; nothing where it is none."""
    with suppress(SyntaxError, ValueError):
        return parse_parameters(source)
    return {}


def _type_name(annotation: Any) -> str:
    plain = isinstance(annotation, str) or not isinstance(annotation, type) or get_args(annotation)
    return type_name(str(annotation) if plain else annotation.__name__)


def _whole(name: str, value: Any) -> Any:
    """A JSON value with its surrogate pairs, which YAML leaves in halves, as characters."""
    try:
        whole = json.loads(json.dumps(value))
        json.dumps(whole, ensure_ascii=False).encode()
    except ValueError as error:
        raise ValueError(f"parameter {name}: {error}") from None
    return whole
