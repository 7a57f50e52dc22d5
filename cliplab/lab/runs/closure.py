"""Which code some numbers depend on: the modules that it reaches, and a hash that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cliplab.lab.runs.canonical import Definition, Form, digest
from cliplab.lab.runs.faces import PACKAGE, Package, References, Unit, dotted


@dataclass(frozen=True)
class Closure:
    """Some code and the units that it reaches."""

    root: Form
    units: Mapping[Unit, Form]
    references: Mapping[Unit | None, References]  # None: of the root
    folder: Path

    @cached_property
    def key(self) -> str:
        """Hash of the code, its units, and which of them each import means; of no file's name.

        A unit's identity is that of its form and of what it imports, to any depth: rounds of
        hashing, until no round tells more units apart.
        """
        ids = {unit: found.hash for unit, found in self.units.items()}
        while True:
            finer = {unit: self._identity(unit, found, ids) for unit, found in self.units.items()}
            if len(set(finer.values())) == len(set(ids.values())):
                return digest([self._identity(None, self.root, finer), sorted(finer.values())])
            ids = finer

    def _identity(self, unit: Unit | None, found: Form, ids: Mapping[Unit, str]) -> str:
        bound = [
            [one.local, one.name, sorted([r.use, r.name, ids[r.unit]] for r in references)]
            if one.module.split(".")[0] == self.folder.name
            else one
            for one, references in self.references[unit]
        ]
        return digest([found.hash, bound])

    @cached_property
    def outside(self) -> list[str]:
        """Top-level names of the modules imported from elsewhere."""
        imports = [one for found in (self.root, *self.units.values()) for one in found.imports]
        tops = {one.module.split(".")[0] for one in imports}
        return sorted(tops - {self.folder.name, ""})

    def definitions(self) -> dict[str, list[Definition]]:
        """Every definition by ``module:name``; several where it is defined several times."""
        found: dict[str, list[Definition]] = {}
        for unit, unit_form in self.units.items():
            module = dotted(unit.path, self.folder)
            for definition in unit_form.definitions:
                found.setdefault(f"{module}:{definition.name}", []).append(definition)
        return found


def closure_of(root: Form, folder: Path = PACKAGE, *, telling: bool = False) -> Closure:
    """What ``root`` reaches in the package at ``folder``; ``telling``: also what only tells."""
    package = Package(folder, telling)
    units: dict[Unit, Form] = {}
    references: dict[Unit | None, References] = {None: package.references(root)}
    waiting = [r.unit for _, found in references[None] for r in found]
    while waiting:
        unit = waiting.pop()
        if unit not in units:
            units[unit] = package.form(unit)
            references[unit] = package.references(units[unit])
            waiting += [r.unit for _, found in references[unit] for r in found]
    return Closure(root, dict(sorted(units.items())), references, folder)
