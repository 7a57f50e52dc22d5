"""Run records: what a notebook measured, written so that it is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.keys import digest

MIME = "application/vnd.cliplab.record+json"
TEXTS = ("notebook", "preset", "key", "code_key")
TABLES = {"rows": list, "curves": list}


@dataclass(frozen=True)
class RunRecord:
    """One finished run of the notebook of that name (see ``notebook_name``).

    ``directory`` is where it was read from and is not stored. ``rows`` is empty where the notebook
    recorded no table.
    """

    notebook: str
    preset: str
    params: dict[str, Any]
    key: str
    code_key: str
    rows: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    choices: dict[str, Any]
    provenance: dict[str, Any]
    directory: Path = field(compare=False)
    made_of: dict[str, Any] = field(default_factory=dict)  # the parts of the code key
    values: dict[str, Any] = field(default_factory=dict)  # what was recorded by name

    def write(self, path: Path) -> None:
        """Put the record in place atomically, with a hash of its content."""
        stored = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "directory"}
        write_atomic(path, json.dumps(stored | {"sha256": digest(stored)}))

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Read a record; ``ValueError`` if it is damaged, ``FileNotFoundError`` if absent.

        What another version stored beside these fields is not looked at.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(stored, dict) or "sha256" not in stored:
                raise ValueError("no JSON object with a sha256")
            if stored.pop("sha256") != digest(stored):
                raise ValueError("its content does not match its hash")
            return cls(**_checked(cls, stored), directory=path.parent)
        except FileNotFoundError:
            raise
        except (ValueError, OSError, RecursionError) as error:
            raise ValueError(f"corrupt record {path}: {error}") from None


def _checked(kind: type[RunRecord], stored: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record, with values that what reads them can rely on."""
    known: dict[str, Any] = {}
    for f in fields(kind):
        if f.name in stored:
            known[f.name] = stored[f.name]
            _expect(f.name, known[f.name], str if f.name in TEXTS else TABLES.get(f.name, dict))
        elif f.default_factory is MISSING and f.name != "directory":
            raise ValueError(f"no {f.name}")
    for what in TABLES:
        for row in known[what]:
            _expect(what, row, dict)
            _expect(f"arm in {what}", row.get("arm"), str)
            _expect(f"seed in {what}", row.get("seed"), int)
    for row in known["rows"]:
        for name, value in row.items():
            _expect(name, value, str, int, float, type(None))
    for name in ("wall_s", "cpu_s"):
        seconds = known["provenance"].get(name) or 0
        _expect(name, seconds, int, float)
        if not 0 <= seconds < 1e12:
            raise ValueError(f"{name} is {seconds!r:.60}, expected seconds")
    _expect("versions", known["provenance"].get("versions") or {}, dict)
    if made_of := known.get("made_of"):
        made: Any = {"reads": {}} | made_of
        _expect("cells", made.get("cells"), list)
        for part in ("definitions", "reads"):
            _expect(part, made.get(part), dict)
            for name, its_hash in made[part].items():
                _expect(name, its_hash, str)
    return known


def _expect(name: str, value: Any, *kinds: type) -> None:
    if not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name} is {value!r:.60}, expected {expected}")


def union_rows(records: Iterable[RunRecord]) -> list[dict[str, Any]]:
    """Rows of all records; a duplicate (arm, seed) is a ``ValueError`` naming both records."""
    rows: list[dict[str, Any]] = []
    owner: dict[tuple[str, int], RunRecord] = {}
    for run in records:
        for row in run.rows:
            arm, seed = row["arm"], row["seed"]
            if (arm, seed) in owner:
                raise ValueError(
                    f"arm {arm!r}, seed {seed} is in two records, {owner[arm, seed].directory} and "
                    f"{run.directory}; a parameter that varies must be part of the arm's name"
                )
            owner[arm, seed] = run
        rows += run.rows
    return rows
