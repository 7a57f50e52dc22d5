"""Run records: what a notebook measured, written so that it is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cliplab.lab.runs.files import write_atomic
from cliplab.lab.runs.keys import digest

MIME = "application/vnd.cliplab.record+json"


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
        """Read a record; ``ValueError`` if it is damaged, ``FileNotFoundError`` if absent."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("sha256") != digest(stored):
                raise ValueError("its content does not match its hash")
            return cls(**stored, directory=path.parent)
        except FileNotFoundError:
            raise
        except KeyError as error:
            why = f"no {error}"
        except (AttributeError, TypeError, ValueError, OSError) as error:
            why = str(error)
        raise ValueError(f"corrupt record {path}: {why}; delete it to run again")


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
