"""A preset in a notebook that is open."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cliplab.lab.notebook.inside import in_batch, notebook_shell
from cliplab.lab.notebook.parameters import declared_in, read_parameters, read_signature
from cliplab.lab.notebook.presets import preset_values, read_presets, stems_with_presets
from cliplab.lab.notebook.values import Parameter, same

Declared = Mapping[str, Parameter]


def load_preset(preset: str, notebook: str | Path | None = None) -> None:
    """Give the parameters of the open notebook their values in a preset, and print which changed.

    It stands after the parameters cell. What the preset does not name gets the value that this cell
    has. What papermill put in stays as it is; in a batch, where ``--preset`` and ``-p`` say what
    the parameters are, all do; both are printed.

    ``ValueError``: the file of the notebook cannot be told, there is no such preset, or this is no
    notebook.

    Args:
        preset: its name in presets.toml.
        notebook: the file whose presets are meant, where that cannot be told.
    """
    if in_batch():
        print(f"load_preset({preset!r}) has no effect in a batch: it goes by --preset and -p")
        return
    shell = notebook_shell()
    if shell is None:
        raise ValueError(f"load_preset({preset!r}) works in an open notebook only")
    namespace: dict[str, Any] = shell.user_ns
    cells: list[str] = namespace["In"]  # that were run so far
    path = Path(notebook) if notebook else _open_notebook(preset, namespace, cells)
    signature = read_signature(path)
    if declared := _as_run(cells, signature.parameters):
        signature = replace(signature, parameters=declared)
    values = preset_values(signature, read_presets(path), preset, path.stem)
    wanted = [n for n, value in values.items() if not _has(namespace, n, value)]
    injected = {n for cell in cells if cell.startswith("# Parameters\n") for n in declared_in(cell)}
    changed = [name for name in wanted if name not in injected]
    print(f"preset {preset} of {path.stem}: {len(changed)} of {len(values)} parameters changed")
    for name in changed:
        before = f"(was {namespace[name]!r})" if name in namespace else "(was not set)"
        print(f"  {name} = {values[name]!r}  {before}")
        namespace[name] = values[name]
    for name in wanted:
        if name in injected:
            print(f"  {name} = {namespace.get(name)!r}  stays, as papermill put it in")


def _has(namespace: Mapping[str, Any], name: str, value: Any) -> bool:
    with suppress(TypeError):  # of what no parameter can be
        return name in namespace and same(namespace[name], value)
    return False


def _open_notebook(preset: str, namespace: Mapping[str, Any], cells: Sequence[str]) -> Path:
    """The notebook whose parameters cell was run: the one that is open, else one beside it.

    A copy by another name has no presets; those of its original are meant.
    """
    said = [os.environ.get("JPY_SESSION_NAME"), namespace.get("__vsc_ipynb_file__")]
    opened = [path for path in map(Path, filter(None, said)) if _has_presets(path)]
    beside = [Path.cwd() / f"{stem}.ipynb" for stem in stems_with_presets(Path.cwd())]
    for paths in (opened, beside):
        found = [path for path in paths if _was_run(path, cells)]
        if len(found) == 1:
            return found[0]
    raise ValueError(
        f"load_preset({preset!r}): run the parameters cell first; if that was done, say which "
        f"notebook's preset is meant: load_preset({preset!r}, notebook='NAME.ipynb')"
    )


def _has_presets(path: Path) -> bool:
    return path.suffix == ".ipynb" and path.stem in stems_with_presets(path.parent)


def _was_run(path: Path, cells: Sequence[str]) -> bool:
    """Whether the parameters cell of a notebook was."""
    with suppress(ValueError):  # there is no such notebook
        return bool(_as_run(cells, read_parameters(path)))
    return False


def _as_run(cells: Sequence[str], parameters: Declared) -> Declared:
    """The parameters as the last cell that was run and declares just them has them, else none."""
    found = (declared_in(cell) for cell in reversed(cells) if parameters)
    return next((declared for declared in found if declared.keys() == parameters.keys()), {})
