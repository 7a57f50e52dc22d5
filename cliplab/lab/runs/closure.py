"""Which code some numbers depend on: the modules that it reaches, and a hash that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cliplab.lab.runs.canonical import Definition, Form, digest
from cliplab.lab.runs.faces import PACKAGE, Package, References, Unit
from cliplab.lab.runs.places import Places
from cliplab.lab.runs.syntax import RUN, WRITES


@dataclass(frozen=True)
class Closure:
    """Some code, the units that it reaches, and the files that it reads."""

    root: Form
    units: Mapping[Unit, Form]
    references: Mapping[Unit | None, References]  # None: of the root
    folder: Path
    names: Mapping[Path, str]  # of the units' files
    own: frozenset[str]  # top-level modules that count by their content
    beside: Path = Path()  # where it runs
    home: Path = Path()  # where its notebook lies
    reads: Mapping[str, str] = field(default_factory=dict)  # hashes of files, named as from home
    ignores: tuple[str, ...] = ()  # patterns of files that it reads and no number depends on

    @cached_property
    def key(self) -> str:
        """Hash of code, units, which of them each import means, and data; of no module's name.

        A unit's identity is that of its form and of what it imports, to any depth: rounds of
        hashing, until no round tells more units apart.
        """
        ids = {unit: found.hash for unit, found in self.units.items()}
        while True:
            finer = {unit: self._identity(unit, found, ids) for unit, found in self.units.items()}
            if len(set(finer.values())) == len(set(ids.values())):
                code = [self._identity(None, self.root, finer), sorted(finer.values())]
                return digest([*code, dict(self.reads)] if self.reads else code)
            ids = finer

    def _identity(self, unit: Unit | None, found: Form, ids: Mapping[Unit, str]) -> str:
        bound = [
            [one.local, one.name, sorted([r.use, r.name, ids[r.unit]] for r in references)]
            if references or one.module.split(".")[0] in self.own
            else one
            for one, references in self.references[unit]
        ]
        return digest([found.hash, bound])

    @cached_property
    def outside(self) -> list[str]:
        """Top-level names of the modules imported from elsewhere."""
        imports = [one for found in (self.root, *self.units.values()) for one in found.imports]
        tops = {one.module.split(".")[0] for one in imports}
        return sorted(tops - self.own - {""})

    def unlike(self, other: Closure) -> list[str]:
        """The names of modules and data that are not the same in both."""
        return sorted({name for name, _ in self._contents() ^ other._contents()})

    def _contents(self) -> set[tuple[str, object]]:
        units = {(self.names[one.path], (one, found.hash)) for one, found in self.units.items()}
        return {*units, *self.reads.items()}

    def definitions(self) -> dict[str, list[Definition]]:
        """Every definition by ``module:name``; several where it is defined several times."""
        found: dict[str, list[Definition]] = {}
        for unit, unit_form in self.units.items():
            for definition in unit_form.definitions:
                name = f"{self.names[unit.path]}:{definition.name}"
                found.setdefault(name, []).append(definition)
        return found


def closure_of(
    root: Form,
    folder: Path = PACKAGE,
    *,
    telling: bool = False,
    beside: Path | None = None,
    home: Path | None = None,
    reads: Mapping[str, str] | None = None,
    ignores: tuple[str, ...] = (),
) -> Closure:
    """What ``root`` reaches in the package at ``folder``, and of what has no version.

    ``telling``: also what only tells; ``beside``: the folder where modules are looked for first.
    """
    places = Places()
    if beside:
        written = frozenset(beside / name for name in _named(root, WRITES))
        places = Places(tuple(beside / name for name in _folders(root)), written)
    package = Package(folder, telling, places)
    units: dict[Unit, Form] = {}
    references: dict[Unit | None, References] = {None: package.references(root)}
    waiting = [r.unit for _, found in references[None] for r in found]
    while waiting:
        unit = waiting.pop()
        if unit not in units:
            units[unit] = package.form(unit)
            references[unit] = package.references(units[unit])
            waiting += [r.unit for _, found in references[unit] for r in found]
    return Closure(
        root=root,
        units=dict(sorted(units.items())),
        references=references,
        folder=folder,
        names={unit.path: package.of(unit.path).name for unit in units},
        own=frozenset(top for top, base in package.bases.items() if base),
        beside=beside or Path(),
        home=home or Path(),
        reads=reads or {},
        ignores=ignores,
    )


def _folders(root: Form) -> list[str]:
    """Where modules are: in the notebook's folder, where it says, and beside what it runs."""
    paths = _named(root, RUN)
    return list(dict.fromkeys([".", *(path.rpartition("/")[0] or "." for path in paths)]))


def _named(root: Form, prefix: str) -> list[str]:
    """The paths that stand among the imports, as the prefix says what for."""
    names = (one.module for one in root.imports)
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
