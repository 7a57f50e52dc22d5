"""What the names of modules mean: followed through faces to the file that defines them.

A face is an ``__init__``, or a module by an old path, that only hands names on: ``from cliplab
import Clipper`` depends on the file that defines Clipper, not on all that the face imports. The
names of a lazy face (one with a ``__getattr__``) are the imports under its ``if TYPE_CHECKING``. A
name that cannot be followed stands for the whole face. Only the package's own faces are followed:
what a user's ``__init__`` imports may have effects.

A module of the package whose header, or the nearest one upward, says ``Makes numbers: no.`` only
tells: no name leads to it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from os.path import isdir, isfile
from pathlib import Path
from typing import NamedTuple

import cliplab
from cliplab.lab.runs.canonical import TEXT, Form, form, form_of
from cliplab.lab.runs.places import Places, file_of
from cliplab.lab.runs.sources import form_of_file, offered
from cliplab.lab.runs.syntax import RUN, Import, imports_of

PACKAGE = Path(cliplab.__file__).resolve().parent
Use = tuple[str, ...]  # the attributes that are read of a module, one of the other
Seen = frozenset[tuple[str, Use]]


class Unit(NamedTuple):
    """A module, or one name that a face defines itself."""

    path: Path
    name: str = ""


class Reference(NamedTuple):
    """What an import gives: ``name`` of ``unit``, where the importer says ``use``."""

    use: Use
    name: Use
    unit: Unit


References = list[tuple[Import, frozenset[Reference]]]


@dataclass(frozen=True)
class Face:
    """The names that a face hands on, and those that it defines."""

    table: Mapping[str, Import]
    own: Mapping[str, Form]


def dotted(path: Path, folder: Path) -> str:
    """The name of the module in a file of the package."""
    parts = path.relative_to(folder.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def makes_numbers(path: Path, folder: Path = PACKAGE) -> bool:
    """What the header of a module, else of the nearest room around it, says; without one, yes."""
    return Package(folder).makes_numbers(path)


@cache
def _header(source: str) -> str | None:
    if "Makes numbers:" not in source:
        return None
    found = re.search(
        r"^Makes numbers: (yes|no)\.", ast.get_docstring(ast.parse(source)) or "", re.M
    )
    return found[1] if found else None


@dataclass(frozen=True, eq=False)
class Module:
    """A module's file as it was read; ``parts`` are its dotted name."""

    path: Path
    parts: tuple[str, ...]
    source: str = ""  # of the package's own
    face: Face | None = None

    @property
    def name(self) -> str:
        """Its dotted name."""
        return ".".join(self.parts)

    @property
    def package(self) -> str:
        """What its relative imports are relative to."""
        return ".".join(self.parts if self.path.stem == "__init__" else self.parts[:-1])


@dataclass
class Package:
    """The modules below a folder and in some places, each read once, and what their names mean."""

    folder: Path
    telling: bool = False
    places: Places = field(default_factory=Places)
    modules: dict[tuple[str, ...], Module | None] = field(default_factory=dict)
    files: dict[Path, Module] = field(default_factory=dict)
    bases: dict[str, Path | None] = field(default_factory=dict)

    def module(self, parts: tuple[str, ...]) -> Module | None:
        """The module of that name, if there is one that counts by its content."""
        if parts not in self.modules:
            self.modules[parts] = module = self._read(parts)
            if module:
                self.files[module.path] = module
        return self.modules[parts]

    def base(self, top: str) -> Path | None:
        """The path, without a suffix, of a top-level module that counts by its content."""
        if top not in self.bases:
            self.bases[top] = self.folder if top == self.folder.name else self.places.base(top)
        return self.bases[top]

    def _read(self, parts: tuple[str, ...]) -> Module | None:
        top = self.base(parts[0])
        if top is None:
            return None
        base = top.joinpath(*parts[1:])
        path = file_of(base)
        if path is None:  # a folder is a package all the same
            empty = Module(base / "__init__.py", parts, face=Face({}, {}))
            return empty if isdir(base) else None
        if top != self.folder:
            return Module(path, parts)
        module = Module(path, parts, path.read_text(encoding="utf-8"))
        face = _face(module.source, module.package, self.folder.name)
        if face and path.name != "__init__.py" and (face.own or not face.table):
            face = None  # a module of its own names
        return replace(module, face=face)

    def of(self, path: Path) -> Module:
        """The module in a file that was read, or that lies below the folder."""
        if path not in self.files:
            self.module(tuple(dotted(path, self.folder).split(".")))
        return self.files[path]

    def script(self, name: str) -> frozenset[Reference]:
        """The unit of a file that is run."""
        paths = [path for path in (folder / name for folder in self.places.folders) if isfile(path)]
        for path in paths[:1]:
            self.files.setdefault(path, Module(path, (name,)))
        return frozenset(Reference((), (), Unit(path)) for path in paths[:1])

    def makes_numbers(self, path: Path) -> bool:
        """See the function of that name."""
        parts = self.of(path).parts if path.is_relative_to(self.folder) else ()
        for depth in range(len(parts), 0, -1):
            module = self.module(parts[:depth])
            if module and (said := _header(module.source)):
                return said == "yes"
        return True

    def form(self, unit: Unit) -> Form:
        """A unit's form."""
        module = self.of(unit.path)
        if unit.name:
            assert module.face is not None
            return module.face.own[unit.name]
        if unit.path.is_relative_to(self.folder):
            return form(module.source, module.package, self.folder.name)
        return form_of_file(unit.path, module.package, self.folder.name)

    def references(self, found: Form) -> References:
        """What each import of a form means."""
        return [(one, self.reference(one, found.chains)) for one in found.imports]

    def reference(self, one: Import, chains: Mapping[str, set[Use]]) -> frozenset[Reference]:
        """The units that an import means, by the attributes that are read of what it binds."""
        if one.module.startswith(RUN):
            return self.script(one.module.removeprefix(RUN))
        if self.base(one.module.split(".")[0]) is None:
            return frozenset()
        uses: set[Use] = set(chains.get(one.local, ()))
        if one.local == TEXT or one.name == "*":
            uses = {()}
        elif one.name:
            uses = {(one.name, *use) for use in uses or {()}}
        found: set[Reference] = set()
        self.follow(one.module, uses, found)
        return frozenset(found)

    def follow(
        self, module: str, uses: Iterable[Use], found: set[Reference], seen: Seen = frozenset()
    ) -> None:
        """Add the units of a module, of its parents that are no faces, and of names in faces."""
        parts = tuple(module.split("."))
        while (target := self.module(parts)) is None:  # what follows a module: an attribute
            uses, parts = {(parts[-1], *use) for use in uses}, parts[:-1]
        for depth in range(1, len(parts)):
            parent = self.module(parts[:depth])
            if parent and not parent.face:
                self.add(Reference((), (), Unit(parent.path)), found)
        is_room = target.path.stem == "__init__"  # reading nothing of it: nothing
        for use in set(uses) or (() if target.face and is_room else {()}):
            if target.face and (target.name, use) not in seen:
                self.follow_face(target, target.face, use, found, seen | {(target.name, use)})
            elif target.face is None:
                self.add(Reference(use[:1], use[:1], Unit(target.path)), found)
                late = offered(target.path) if is_room and not target.source else set()
                for name in {*use[:1], *late}:
                    if self.module((*parts, name)):
                        inner = use[1:] if (name,) == use[:1] else ()
                        self.follow(f"{target.name}.{name}", {inner}, found, seen)

    def follow_face(
        self, module: Module, face: Face, use: Use, found: set[Reference], seen: Seen
    ) -> None:
        """Add what ``use`` means: a name handed on, a submodule, an own name, else all of them."""
        first, rest = use[:1], use[1:]
        reached: set[Reference] = set()
        one = face.table.get(first[0]) if first else None
        if one and (one.module, one.name) != (module.name, first[0]):  # not `from . import first`
            if one.module.split(".")[0] == self.folder.name:
                self.follow(one.module, {(one.name, *rest) if one.name else rest}, reached, seen)
            if one.name:  # called `first` here
                reached = {r._replace(use=r.use[1:]) for r in reached}
        elif first and self.module((*module.parts, first[0])):
            self.follow(f"{module.name}.{first[0]}", {rest}, reached, seen)
        elif first and first[0] in face.own:
            self.add(Reference((), first, Unit(module.path, first[0])), reached)
        else:
            for name in (*face.table, *face.own):
                if (module.name, (name,)) not in seen:
                    inner = seen | {(module.name, (name,))}
                    self.follow_face(module, face, (name,), reached, inner)
            first = ()
        found.update(Reference((*first, *r.use), r.name, r.unit) for r in reached)

    def add(self, reference: Reference, found: set[Reference]) -> None:
        """Add a reference, unless what it means only tells."""
        if self.telling or self.makes_numbers(reference.unit.path):
            found.add(reference)


@cache
def _face(source: str, package: str, top: str) -> Face | None:
    """What an ``__init__`` hands on; None where it does more than that."""
    body = ast.parse(source).body
    lazy = any(isinstance(n, ast.FunctionDef) and n.name == "__getattr__" for n in body)
    table: dict[str, Import] = {}
    own: dict[str, Form] = {}
    for node in body:
        statements: list[ast.stmt] = [node]
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            statements = [*(node.body if lazy else ()), *node.orelse]
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                table |= {one.local: one for one in imports_of(statement, package) if one.local}
            elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value:
                try:
                    ast.literal_eval(statement.value)
                except ValueError:
                    return None
                own |= dict.fromkeys(_names(statement), form_of([_module(statement)], package, top))
            elif not _does_nothing(statement):
                return None
    tops = {one.module.split(".")[0] for one in table.values()}
    only_names = tops <= {top, *sys.stdlib_module_names} and "*" not in table
    return Face(table, own) if only_names else None


def _does_nothing(node: ast.stmt) -> bool:
    """A docstring, or what looks up the names of a lazy face."""
    if isinstance(node, ast.FunctionDef):
        return node.name in ("__getattr__", "__dir__")
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _names(node: ast.stmt) -> list[str]:
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id != "__all__"]


def _module(node: ast.stmt) -> ast.Module:
    return ast.Module([node], [])
