"""Which notebooks there are, and the parameter sets of each."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.declarations import SEEDS
from cliplab.lab.notebook.naming import meant, only
from cliplab.lab.notebook.parameters import Signature, read_signature
from cliplab.lab.notebook.registrations import read_registration

__all__ = [
    "MARK",
    "SEEDS",
    "find_notebooks",
    "named_notebooks",
    "notebook_name",
    "preset_params",
    "preset_values",
    "read_presets",
    "read_tables",
    "stems_with_presets",
]

MARK = ".cliplab"  # a file that says that cliplab made its folder, and in its first line what for
# Other files that tell a folder of cliplab's from a user's: a run's own, and all results'.
_RUN, _LAST = ".lock", "last_run.json"


def find_notebooks(names: Sequence[str], folder: Path) -> list[Path]:
    """Notebooks by name (or what is ``meant``), path, folder, in order, each once; unnamed: all."""
    return list(named_notebooks(names, folder))


def named_notebooks(names: Sequence[str], folder: Path) -> dict[Path, bool]:
    """Those of :func:`find_notebooks`, and whether each was named, and not just a folder of it."""
    paths = names and all(name.endswith(".ipynb") for name in names)
    known = [] if paths else list(_below(folder))
    if not names:
        if not known:
            raise ValueError(f"no notebooks in {folder}: name some, or their folder by --notebooks")
        return dict.fromkeys(known, False)
    found: dict[Path, bool] = {}
    for name in names:
        for path, named in _named(name, known, folder).items():
            found[path] = found.get(path, False) or named
    return found


def _named(name: str, known: Sequence[Path], folder: Path) -> dict[Path, bool]:
    path = Path(name)
    if name == "-" or re.match(r"[a-z][a-z0-9+.-]*://", name, re.IGNORECASE):
        raise ValueError(f"{name}: only files on this machine are run")
    if name.endswith(".ipynb") and not path.is_dir():
        if not path.is_file():
            raise ValueError(f"no notebook {name}")
        return {_whole(path): True}
    called = {notebook_name(one, folder): one for one in known}
    if name and name not in {*called, *(one.stem for one in known)}:
        if inside := list(_below(path)):
            return dict.fromkeys(inside, False)
        if (beside := path.with_name(f"{path.name}.ipynb")).is_file():
            return {_whole(beside): True}
    found = meant(name, called)
    if name and not found and path.is_dir():
        raise ValueError(f"no notebooks in {name}")
    return {called[only(name, found, called)]: True}


def _below(folder: Path) -> Iterator[Path]:
    """The notebooks of a folder and those below it, sorted; no hidden ones, none of results."""
    found = []
    for root, folders, files in os.walk(_whole(folder)):
        here = Path(root)
        if _RUN in files or _LAST in files or (MARK in files and _is_marked(here / MARK)):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [here / f for f in files if f.endswith(".ipynb") and not f.startswith(".")]
    yield from sorted(found)


def _is_marked(mark: Path) -> bool:
    """Whether the mark is that of results or reports, and not of notebooks."""
    with suppress(OSError, ValueError):
        return not mark.read_text(encoding="utf-8").startswith("notebooks")
    return True


def _whole(path: Path) -> Path:
    return Path(os.path.abspath(path))


def notebook_name(path: Path, folder: Path) -> str:
    """What a notebook is called: its path from ``folder``, else from the working directory.

    One that lies below neither, or would be called like one of the folder's, is told from its
    namesakes by a hash of where it lies.

    >>> notebook_name(Path("notebooks/01_a.ipynb"), Path("notebooks"))
    '01_a'
    >>> notebook_name(Path("mine/sub/b.ipynb"), Path("notebooks"))
    'mine/sub/b'
    """
    whole = Path(os.path.abspath(path)).with_suffix("")
    for root in (folder, Path()):
        with suppress(ValueError):
            name = whole.relative_to(os.path.abspath(root)).as_posix()
            if root == folder or not (folder / f"{name}.ipynb").exists():
                return name
    where = hashlib.sha256(str(whole.parent).encode()).hexdigest()
    return f"outside/{whole.name}-{where[:8]}"


def read_presets(notebook: Path) -> dict[str, dict[str, Any]]:
    """The notebook's presets from presets.toml beside it; ``quick`` is always there.

    ``fingerprint`` is the verdict but for its own lines, so that its shapes cannot drift. The first
    seed of ``verdict``, and with it of its ``replica``, is the one that a registration fixed.
    """
    path = notebook.parent / "presets.toml"
    found = read_tables(path).get(notebook.stem, {})
    presets = {"quick": {}} | _table(found, f"{path}: {notebook.stem}", "[NOTEBOOK.PRESET]")
    for name, values in presets.items():
        _table(values, f"{path}: {notebook.stem}.{name}", f"[{notebook.stem}.{name}]")
    if "verdict" in presets and (registration := read_registration(notebook)):
        verdict = presets["verdict"]
        presets["replica"] = verdict | {"first_seed": registration["replica_seed"]}
        presets["verdict"] = verdict | {"first_seed": registration["first_seed"]}
    if "fingerprint" in presets:
        presets["fingerprint"] = presets.get("verdict", {}) | presets["fingerprint"]
    return presets


def stems_with_presets(folder: Path) -> list[str]:
    """The notebooks, by their stems, that the folder's presets.toml has presets of."""
    return list(read_tables(folder / "presets.toml"))


def read_tables(path: Path) -> dict[str, Any]:
    """What a TOML file holds, nothing where there is none; ``ValueError``: it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def _table(found: object, where: str, expected: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{where} = {found!r}: expected a table {expected}")
    return found


def preset_params(notebook: Path, preset: str) -> dict[str, Any]:
    """The values that parameters have in a preset: the defaults that are known, and its table."""
    signature, presets = read_signature(notebook), read_presets(notebook)
    return preset_values(signature, presets, preset, notebook.stem)


def preset_values(
    signature: Signature, presets: Mapping[str, Mapping[str, Any]], preset: str, name: str
) -> dict[str, Any]:
    """The same of what has been read; a ``ValueError`` has the notebook's ``name``."""
    if preset == "replica" and preset not in presets:
        raise ValueError(f"{name} cannot be replicated, as it is not registered")
    if preset not in presets:
        raise ValueError(f"{name} has no preset {preset!r}, only {', '.join(presets)}")
    try:
        return signature.defaults | signature.typed(presets[preset])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
