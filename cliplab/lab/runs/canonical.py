"""Values and source code in a canonical form: what is computed, not how it is written down.

Two sources with the same form compute the same numbers: comments, docstrings, formatting, types in
signatures and ``if TYPE_CHECKING`` blocks are not part of it. The form is the same on every
supported Python minor version. Import statements stand apart, to be resolved by the reader.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from cliplab.lab.notebook.syntax import parse
from cliplab.lab.runs.syntax import (
    Function,
    Import,
    chain,
    effective,
    functions_in,
    imports_of,
    last_name,
    merged,
    named,
)

# What only type checkers need of an import: it counts where the code without types uses it.
TYPING = ("__future__", "typing", "typing_extensions", "types", "collections.abc", "numpy.typing")
# Decorators that do not look at the types in a signature; under any other, these are kept.
BLIND = (
    *("abstractmethod", "cache", "cached_property", "classmethod", "contextmanager", "deleter"),
    *("inference_mode", "lru_cache", "no_grad", "override", "property", "setter", "staticmethod"),
)
LOADERS = ("__import__", "find_spec", "import_module")  # of a module whose name is a string
TEXT = '"'  # the local name of what a string names
Chains = dict[str, set[tuple[str, ...]]]


def digest(value: object) -> str:
    """Sha256 of the canonical JSON of a value.

    >>> digest({"a": 1, "b": 2.0}) == digest({"b": 2.0, "a": 1}) != digest({"a": 1.0, "b": 2.0})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class Definition(NamedTuple):
    """A function, method, class body or module-level statement, and the hash of its form."""

    name: str
    kind: str  # function, body or import
    hash: str
    line: int


@dataclass(frozen=True)
class Form:
    """A module's (or notebook's) form: ``imports`` in the order in which ``hash`` means them."""

    hash: str
    parts: tuple[str, ...]  # the hash of each source
    imports: tuple[Import, ...]
    chains: Chains  # the attributes read of each name, () where it is used otherwise
    definitions: tuple[Definition, ...]


@cache
def form(source: str, package: str, top: str = "cliplab") -> Form:
    """The form of a module whose package is ``package``; ``SyntaxError`` if it is not Python."""
    return form_of([parse(source)], package, top)


def form_of(trees: Sequence[ast.Module], package: str, top: str = "cliplab") -> Form:
    """The form of several sources that run one after the other in one namespace."""
    writer = _Writer(package, top)
    parts = [digest(writer.body(tree.body, "")) for tree in trees]
    typing = sorted(i for i in writer.typing if i.local in writer.chains)
    writer.imports += typing
    entries = [(i.local, i.name) for i in typing]
    return Form(
        hash=digest([parts, entries]),
        parts=tuple(parts),
        imports=tuple(writer.imports),
        chains=writer.chains,
        definitions=tuple(writer.definitions),
    )


@dataclass
class _Writer:
    """Turns statements into nested lists; gathers imports, attribute chains and definitions."""

    package: str
    top: str
    imports: list[Import] = field(default_factory=list)
    typing: list[Import] = field(default_factory=list)
    chains: Chains = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    nested: bool = False  # in a function, whose parts are no definitions of their own
    typed: bool = True  # annotations of variables count: not in a function, but in its classes

    def body(self, statements: Iterable[ast.stmt], prefix: str) -> list[Any]:
        """The statements of a module, each a definition of its own; of a class, its functions."""
        statements = list(effective(statements))
        forms = [self.bindings(statements, define=True)]
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                continue
            if isinstance(statement, ast.ClassDef):
                forms.append(self.class_(statement, prefix))
                continue
            forms.append(self.node(statement))
            kind = "function" if isinstance(statement, Function) else "body"
            for inner in functions_in(statement):
                self.define(prefix + inner.name, "function", _quiet(self).node(inner), inner)
            if kind == "function" or not prefix:  # a class's other statements are one with it
                self.define(prefix + named(statement), kind, forms[-1], statement)
        return forms

    def class_(self, node: ast.ClassDef, prefix: str) -> list[Any]:
        """A class: its head, and then its statements."""
        head = [
            *("ClassDef", node.name),
            *(self.node(n) for n in (*node.decorator_list, *node.bases, *node.keywords)),
            *(self.node(n) for n in getattr(node, "type_params", [])),
        ]
        name = f"{prefix}{node.name}"
        outer, self.typed = self.typed, True
        if self.nested:
            head.append(self.block(node.body))
        else:
            methods = [n for n in node.body if isinstance(n, Function | ast.ClassDef)]
            rest = [n for n in node.body if n not in methods]
            self.define(name, "body", [head, _quiet(self).block(rest)], node)
            head.append(self.body(node.body, f"{name}."))
        self.typed = outer
        return head

    def define(self, name: str, kind: str, form: Any, node: ast.stmt) -> None:
        """Note a definition; a decorated one starts where its decorators do."""
        lines = [n.lineno for n in (*getattr(node, "decorator_list", []), node)]
        self.definitions.append(Definition(name, kind, digest(form), min(lines)))

    def block(self, statements: Iterable[ast.stmt]) -> list[Any]:
        """Statements without what has no effect, and their imports first, in sorted order."""
        statements = list(effective(statements))
        rest = [n for n in statements if not isinstance(n, ast.Import | ast.ImportFrom)]
        return [self.bindings(statements), *map(self.node, rest)]

    def bindings(self, statements: Iterable[ast.stmt], define: bool = False) -> list[Any]:
        """What a block's import statements bind; where it comes from is in ``imports``."""
        found = []
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for one in imports_of(statement, self.package):
                    if one.module in TYPING:
                        self.typing.append(one)
                        continue
                    found.append(one)
                    ours = one.module.split(".")[0] == self.top
                    if define and not (ours and one.local == one.name):
                        source = one.name if ours else f"{one.module}.{one.name}"
                        self.define(one.local or one.module, "import", source, statement)
        found.sort(key=lambda one: (one.local, one.name))
        self.imports += found
        return [("import", one.local, one.name) for one in found]

    def node(self, node: ast.AST) -> Any:
        """A node as ``[type, field, value, …]`` without empty fields."""
        if isinstance(node, ast.Constant):
            return self.constant(node)
        if isinstance(node, ast.JoinedStr):
            return ["JoinedStr", *merged([self.node(value) for value in node.values])]
        if isinstance(node, ast.Name | ast.Attribute) and (names := chain(node)):
            self.chains.setdefault(names[0], set()).add(names[1:])
            return ["Name", *names]
        if isinstance(node, ast.Call) and last_name(node) in LOADERS:
            for first in node.args[:1]:
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    base = self.package if first.value.startswith(".") else ""
                    self.imports.append(Import(TEXT, "", base + first.value))
        if isinstance(node, Function):
            return self.function(node)
        if isinstance(node, ast.ClassDef):
            return self.class_(node, "")
        if isinstance(node, ast.AnnAssign) and not self.typed:
            if node.value is None:
                return ["AnnAssign", self.node(node.target)]
            return ["Assign", "targets", [self.node(node.target)], "value", self.node(node.value)]
        return self.fields(node)

    def fields(self, node: ast.AST, without: Sequence[str] = ()) -> list[Any]:
        parts: list[Any] = [type(node).__name__]
        for name in node._fields:
            value = getattr(node, name, None)
            if value is None or value == [] or name in ("ctx", "kind", "type_comment", *without):
                continue
            if isinstance(value, ast.AST):
                value = self.node(value)
            elif isinstance(value, list):
                if isinstance(value[0], ast.stmt):
                    value = self.block(value)
                else:  # None: a key of {**other}, a keyword-only argument without default
                    value = [self.node(v) if isinstance(v, ast.AST) else v for v in value]
            parts += [name, value]
        return parts

    def function(self, node: Function) -> list[Any]:
        """A function without the types of its signature, unless a decorator may read them."""
        decorators = [self.node(n) for n in node.decorator_list]
        keep = any(last_name(n) not in BLIND for n in node.decorator_list)
        outer = self.nested, self.typed
        self.nested, self.typed = True, False
        drop = ("decorator_list", *(() if keep else ("args", "returns", "type_params")))
        parts = self.fields(node, drop)
        if not keep:
            for part in ast.walk(node.args):
                if isinstance(part, ast.arg):
                    part.annotation = None
            parts += ["args", self.node(node.args)]
        self.nested, self.typed = outer
        return [*parts, "decorators", decorators]

    def constant(self, node: ast.Constant) -> Any:
        value = node.value
        if isinstance(value, str):
            if re.fullmatch(rf"{self.top}(\.\w+)+", value):  # a module, imported by its name
                self.imports.append(Import(TEXT, "", value))
                return ["import", TEXT, ""]
            return ["str", value]
        return [type(value).__name__, repr(value)]


def _quiet(writer: _Writer) -> _Writer:
    """A writer whose findings are thrown away: for a form that is written elsewhere, too."""
    return _Writer(writer.package, writer.top)
