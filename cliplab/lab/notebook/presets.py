"""Which notebooks there are, and the parameter sets of each."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.parameters import Parameter, coerce, read_parameters

SEEDS = ("first_seed", "n_seeds")  # which part of an experiment a run is, not which experiment


def find_notebooks(names: Sequence[str], folder: Path) -> list[Path]:
    """Notebooks by stem, unique prefix or path, in order and each once; none named: all."""
    known = sorted(folder.glob("*.ipynb"))
    if not names and not known:
        raise ValueError(f"no notebooks in {folder}")
    found = [_find_notebook(name, known) for name in names] if names else known
    return list(dict.fromkeys(path.absolute() for path in found))


def notebook_name(path: Path, folder: Path) -> str:
    """What a notebook is called: its path from ``folder``, else from the working directory.

    One that lies below neither is told from its namesakes by a hash of where it lies.

    >>> notebook_name(Path("notebooks/01_a.ipynb"), Path("notebooks"))
    '01_a'
    >>> notebook_name(Path("mine/sub/b.ipynb"), Path("notebooks"))
    'mine/sub/b'
    """
    whole = Path(os.path.abspath(path)).with_suffix("")
    for root in (folder, Path()):
        with suppress(ValueError):
            return whole.relative_to(os.path.abspath(root)).as_posix()
    where = hashlib.sha256(str(whole.parent).encode()).hexdigest()
    return f"outside/{whole.name}-{where[:8]}"


def _find_notebook(name: str, known: Sequence[Path]) -> Path:
    if name.endswith(".ipynb"):
        if not Path(name).is_file():
            raise ValueError(f"no notebook {name}")
        return Path(name)
    matches = [path for path in known if path.stem == name]
    matches = matches or [path for path in known if path.stem.startswith(name)]
    if len(matches) != 1:
        what = f"matches {len(matches)} notebooks" if matches else "matches no notebook"
        stems = ", ".join(path.stem for path in matches or known) or "none found"
        raise ValueError(f"{name!r} {what}: {stems}")
    return matches[0]


def read_presets(notebook: Path) -> dict[str, dict[str, Any]]:
    """The notebook's presets from presets.toml beside it; ``quick`` is always there.

    ``fingerprint`` is the verdict but for its own lines, so that its shapes cannot drift.
    """
    path = notebook.parent / "presets.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    presets = {"quick": {}} | tables.get(notebook.stem, {})
    if "fingerprint" in presets:
        presets["fingerprint"] = presets.get("verdict", {}) | presets["fingerprint"]
    return presets


def preset_params(notebook: Path, preset: str) -> dict[str, Any]:
    """Every parameter's value in a preset: the notebook's defaults, overlaid by its table."""
    declared, presets = read_parameters(notebook), read_presets(notebook)
    if preset not in presets:
        raise ValueError(f"{notebook.stem} has no preset {preset!r}: {', '.join(presets)}")
    defaults = {name: parameter.default for name, parameter in declared.items()}
    return defaults | typed(declared, presets[preset])


def typed(declared: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the types that a notebook declares; ``ValueError`` names what is unknown or ill."""
    for name in values:
        if name not in declared:
            raise ValueError(f"unknown parameter {name!r}; declared: {', '.join(declared)}")
    return {name: coerce(declared[name], value) for name, value in values.items()}
