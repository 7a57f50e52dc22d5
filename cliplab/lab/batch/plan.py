"""Which runs a command asks for: notebooks, presets, grids, seeds, parts of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from cliplab.lab.batch.spec import How, RunSpec, utc
from cliplab.lab.notebook.parameters import Parameter, read_parameters
from cliplab.lab.notebook.presets import notebook_name, preset_params, typed
from cliplab.lab.runs.keys import closure, environment, run_key


def plan(
    notebooks: Sequence[Path],
    preset: str,
    results: Path,
    *,
    params: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: range | None = None,
    split_seeds: int | None = None,
    folder: Path | None = None,
    how: How | None = None,
    force: bool = False,
) -> list[RunSpec]:
    """Every run asked for: notebooks x grid x chunks of at most ``split_seeds`` seeds.

    Parameters are the notebook's defaults, overlaid by the preset, ``params``, one point of the
    grid, and ``seeds``; ``folder``, if not their own, is what notebooks are
    named from. ``ValueError`` if anything is unknown or ill-typed; touches no file. With
    ``force``, records written before now do not count as done.
    """
    not_before = utc(time.time()) if force else ""
    specs: list[RunSpec] = []
    for notebook in notebooks:
        notebook, name = notebook.absolute(), notebook_name(notebook, folder or notebook.parent)
        declared, code = read_parameters(notebook), closure(notebook)
        try:
            base = preset_params(notebook, preset) | typed(declared, params or {})
            for point in _grid_points(declared, grid or {}):
                for chunk in _seed_chunks(base | point, seeds, split_seeds):
                    values = base | point | chunk
                    varied = {name: values[name] for name in [*(params or {}), *point, *chunk]}
                    key = run_key(code.key, values, environment(code))
                    specs.append(
                        RunSpec(
                            notebook=notebook,
                            name=name,
                            preset=preset,
                            params=values,
                            key=key,
                            code_key=code.key,
                            results=results.resolve(),
                            label=" ".join([name, *(f"{n}={v}" for n, v in varied.items())]),
                            how=how or How(),
                            not_before=not_before,
                        )
                    )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return specs


def _grid_points(
    declared: Mapping[str, Parameter], grid: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    axes: list[list[tuple[str, Any]]] = []
    for name, values in grid.items():
        axis = [(name, typed(declared, {name: value})[name]) for value in values]
        if not axis or any(axis.count(point) > 1 for point in axis):
            raise ValueError(f"grid {name}: expected distinct values, got {list(values)}")
        axes.append(axis)
    return [dict(point) for point in product(*axes)]


def _seed_chunks(
    values: Mapping[str, Any], seeds: range | None, size: int | None
) -> list[dict[str, Any]]:
    if seeds is None and size is None:
        return [{}]
    if seeds is None:
        seeds = range(values["first_seed"], values["first_seed"] + values["n_seeds"])
    step = size or len(seeds)
    chunks = [seeds[start : start + step] for start in range(0, len(seeds), step)]
    return [{"first_seed": chunk.start, "n_seeds": len(chunk)} for chunk in chunks]


def only(specs: Sequence[RunSpec], wanted: Mapping[str, Sequence[Any]]) -> list[RunSpec]:
    """The runs whose parameters have one of the wanted values; ``ValueError`` if there is none."""
    notebooks = dict.fromkeys(spec.notebook for spec in specs)
    declared = {notebook: read_parameters(notebook) for notebook in notebooks}
    for name in wanted:
        if not any(name in parameters for parameters in declared.values()):
            raise ValueError(f"--filter {name}: unknown parameter {name!r} in every notebook")
    points = {
        notebook: _grid_points(parameters, wanted) if wanted.keys() <= parameters.keys() else []
        for notebook, parameters in declared.items()
    }
    kept = [s for s in specs if any(p.items() <= s.params.items() for p in points[s.notebook])]
    if not kept:
        text = " ".join(f"{n}={','.join(map(str, values))}" for n, values in wanted.items())
        raise ValueError(f"--filter {text}: none of the {len(specs)} runs is like that")
    return kept


def shard(specs: Sequence[RunSpec], index: int, count: int) -> list[RunSpec]:
    """Part ``index`` of ``count`` (from 1): together the parts are all runs, each once."""
    return list(specs[index - 1 :: count])
