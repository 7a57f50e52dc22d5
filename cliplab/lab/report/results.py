"""What a results folder holds, whatever batches put there: the folders of runs, and their records.

Wherever the results folder is now: a run's notebook, preset and key are read off its path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cliplab.lab.notebook.naming import meant, only
from cliplab.lab.notebook.presets import notebook_name
from cliplab.lab.runs.record import RunRecord


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, ``path``, below ``results``."""

    path: Path
    notebook: str
    preset: str

    @property
    def record(self) -> Path:
        """Where its record is when it is done."""
        return self.path / "record.json"


def run_folders(results: Path) -> Iterator[RunFolder]:
    """Every ``name/preset/key`` below a results folder, in order; hidden folders are no part of it.

    ``ValueError`` if there is no such folder.
    """
    if not results.is_dir():
        raise ValueError(f"no results: {results} is not a folder")
    for folder, inner, _ in os.walk(results):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        *name, preset = Path(folder).relative_to(results).parts or ("",)
        if name:
            for key in filter(_is_key, inner):
                yield RunFolder(Path(folder, key), "/".join(name), preset)
            inner[:] = [name for name in inner if not _is_key(name)]


def _is_key(name: str) -> bool:
    return re.fullmatch("[0-9a-f]{16}", name) is not None


def read_records(
    results: Path, names: Sequence[str] = (), preset: str | None = None, *, notebooks: Path
) -> tuple[list[RunRecord], list[str]]:
    """The records of these notebooks and this preset (else of all), and what is wrong with others.

    ``ValueError``: there is none.
    """
    folders = [f for f in run_folders(results) if f.record.exists()]
    wanted = chosen(names, (f.notebook for f in folders), notebooks)
    folders = [f for f in folders if f.notebook in wanted and preset in (None, f.preset)]
    if not folders:
        raise ValueError(f"no records{f' of preset {preset!r}' if preset else ''} in {results}")
    loaded, damaged = load_all(folder.record for folder in folders)
    records: dict[tuple[str, str, str], RunRecord] = {}
    for record in loaded:
        records.setdefault((record.notebook, record.preset, record.key), record)
    return list(records.values()), damaged


def load_all(paths: Iterable[Path]) -> tuple[list[RunRecord], list[str]]:
    """The records at these places, and what is wrong with those that cannot be read."""
    records, bad = [], []
    for path in paths:
        try:
            records.append(RunRecord.load(path))
        except FileNotFoundError:
            bad.append(f"no record {path}")
        except ValueError as error:
            bad.append(str(error))
    return records, bad


def chosen(words: Sequence[str], known: Iterable[str], notebooks: Path) -> set[str]:
    """The notebooks meant by name (or what is ``meant``), path or folder; all if no word.

    >>> sorted(chosen(["01", "b"], ["01_a", "mine/b", "c"], Path("notebooks")))
    ['01_a', 'mine/b']
    """
    names = dict.fromkeys(known)
    if not words:
        return set(names)
    return {name for word in words for name in _chosen(word, names, notebooks)}


def _chosen(word: str, known: Collection[str], notebooks: Path) -> list[str]:
    if word.endswith(".ipynb"):
        word = notebook_name(Path(word), notebooks)
        return [only(word, [name for name in known if name == word], known)]
    folders = (os.path.normpath(word), notebook_name(Path(word, "_"), notebooks)[:-2])
    inside = [name for name in known for one in folders if one and name.startswith(f"{one}/")]
    if inside and word not in known:
        return inside
    return [only(word, meant(word, known), known)]
