"""The runs of a race on disk: a line each, as they come; what is there is not run again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliplab.lab.race.rows import Row

__all__ = ["Saved", "key_of"]

Run = tuple[str, float, float | None, int]  # way, lr, threshold, seed


@dataclass
class Saved:
    """Runs of one code in ``rows.jsonl``, and their seconds; ``others``: seeds of other code's.

    Nothing is written before :meth:`keep`.
    """

    path: Path
    code: str
    rows: dict[Run, Row] = field(default_factory=dict)
    seconds: dict[Run, float] = field(default_factory=dict)
    others: list[int] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    keeps: bool = False

    @classmethod
    def read(cls, path: Path, code: str) -> Saved:
        """What is in the file; a line that is torn is dropped, and its run made again."""
        found = cls(path, code)
        if not path.exists():
            return found
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):  # killed while it wrote
            text = text[: text.rfind("\n") + 1]
            path.write_text(text, encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                one = json.loads(line)
                run = (one["way"], one["lr"], one["threshold"], one["seed"])
                if one["code"] == code:
                    found.rows[run], found.seconds[run] = one["row"], one["seconds"]
                else:
                    found.others.append(one["seed"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: {error!r}: remove the line") from None
        return found

    @property
    def seeds(self) -> list[int]:
        """Of all runs, of whatever code."""
        return [*(run[3] for run in self.rows), *self.others]

    def add(self, configuration: Mapping[str, Any], seed: int, row: Row, seconds: float) -> None:
        """One more run."""
        run = key_of(configuration, seed)
        self.rows[run], self.seconds[run] = row, seconds
        names = ("way", "lr", "threshold", "seed")
        about = dict(zip(names, run, strict=True))
        line = json.dumps({"code": self.code, **about, "seconds": round(seconds, 4), "row": row})
        self.unwritten.append(line + "\n")
        if self.keeps:
            self.keep()

    def keep(self) -> None:
        """Write what was added, and from now on each run as it comes."""
        self.keeps = True
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(self.unwritten)
        self.unwritten.clear()


def key_of(configuration: Mapping[str, Any], seed: int) -> Run:
    """What tells one run from another."""
    return configuration["way"], configuration["lr"], configuration["threshold"], seed
