"""Which runs a command asks for: notebooks, presets, grids, seeds, parts of them."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from cliplab.lab.batch.oneline import one_line
from cliplab.lab.batch.spec import How, RunSpec, utc
from cliplab.lab.notebook.cells import read_notebook
from cliplab.lab.notebook.kernel import (
    Kernel,
    check_translatable,
    is_python,
    kernel_of,
)
from cliplab.lab.notebook.parameters import Signature, read_signature
from cliplab.lab.notebook.presets import SEEDS, notebook_name, preset_values, read_presets
from cliplab.lab.notebook.recording import check_recorded_once
from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.keys import closure, environment, run_key


@dataclass(frozen=True)
class _Subject:
    """What a notebook's file says that its runs depend on."""

    path: Path
    signature: Signature
    presets: Mapping[str, Mapping[str, Any]]
    kernel: Kernel
    code: Closure

    @cached_property
    def environment(self) -> dict[str, Any]:
        return environment(self.code, self.kernel.name)

    def given(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What papermill has to put into the notebook."""
        given = self.signature.given(values)
        if given and not self.signature.python:
            check_translatable(self.kernel, given)
        return given


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
    bad: list[str] | None = None,
    named: Container[Path] = (),
) -> list[RunSpec]:
    """Every run asked for: notebooks x grid x chunks of at most ``split_seeds`` seeds.

    Parameters are the notebook's defaults, overlaid by the preset, ``params``, one point of the
    grid, and ``seeds``; ``folder``, if not their own, is what notebooks are named from.
    ``ValueError`` if anything is unknown or ill-typed; touches no file. With ``force``, records
    written before now do not count as done. A notebook that cannot be read is left out and goes
    into ``bad``, if there is such a list and it was not ``named``.
    """
    not_before = utc(time.time()) if force else ""
    how = how or How()
    specs: list[RunSpec] = []
    for path in notebooks:
        path, name = path.absolute(), notebook_name(path, folder or path.parent)
        try:
            subject = _read(path, how)
        except ValueError as error:
            if bad is None or path in named:
                raise
            bad.append(one_line(error))
            continue
        base = preset_values(subject.signature, subject.presets, preset, name)
        try:
            for values, varied in _settings(subject, base, params, grid, seeds, split_seeds):
                spec = RunSpec(
                    notebook=path,
                    name=name,
                    preset=preset,
                    params=values,
                    given=subject.given(values),
                    key=run_key(subject.code.key, values, subject.environment),
                    code_key=subject.code.key,
                    results=results.resolve(),
                    label=one_line(" ".join([name, *(f"{n}={values[n]!s:.80}" for n in varied)])),
                    how=how,
                    kernel_name=subject.kernel.name,
                    language=subject.kernel.language,
                    not_before=not_before,
                )
                specs.append(spec)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    _refuse_shared(specs)
    return specs


def _read(path: Path, how: How) -> _Subject:
    """``ValueError``, which names the file, if there is no running it with whatever values."""
    notebook = read_notebook(path)
    try:
        kernel = kernel_of(notebook, how.kernel_name)
        check_recorded_once(notebook)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    signature = read_signature(path, is_python(kernel.language))
    return _Subject(path, signature, read_presets(path), kernel, closure(path, beside=how.cwd))


def _settings(
    subject: _Subject,
    base: Mapping[str, Any],
    params: Mapping[str, Any] | None,
    grid: Mapping[str, Sequence[Any]] | None,
    seeds: range | None,
    split_seeds: int | None,
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """The values of every run, and which of them were asked for."""
    signature = subject.signature
    base = {**base, **signature.typed(params or {})}
    for point in _grid_points(signature, grid or {}):
        for chunk in _seed_chunks(signature, base | point, seeds, split_seeds):
            yield base | point | chunk, list(dict.fromkeys([*(params or {}), *point, *chunk]))


def _refuse_shared(specs: Sequence[RunSpec]) -> None:
    """``ValueError`` if two notebooks have one name, and so one folder for their results."""
    paths: dict[str, Path] = {}
    for spec in specs:
        if (other := paths.setdefault(spec.name, spec.notebook)) != spec.notebook:
            why = "run them one by one, each with --results of its own"
            raise ValueError(f"{other} and {spec.notebook} would both be {spec.name}: {why}")


def _grid_points(signature: Signature, grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    axes: list[list[tuple[str, Any]]] = []
    for name, values in grid.items():
        axis = [(name, signature.typed({name: value})[name]) for value in values]
        if not axis or any(axis.count(point) > 1 for point in axis):
            raise ValueError(f"grid {name}: expected distinct values, got {list(values)}")
        axes.append(axis)
    return [dict(point) for point in product(*axes)]


def _seed_chunks(
    signature: Signature, values: Mapping[str, Any], seeds: range | None, size: int | None
) -> list[dict[str, Any]]:
    if seeds is None and size is None:
        return [{}]
    if missing := [name for name in SEEDS if name not in signature.parameters]:
        flag = "--seeds" if seeds is not None else "--split-seeds"
        raise ValueError(f"{flag}: the notebook declares no {' and no '.join(missing)}")
    if seeds is None:
        first, count = (values.get(name) for name in SEEDS)
        if type(first) is not int or type(count) is not int or count < 1:
            raise ValueError(f"--split-seeds: first_seed={first!r}, n_seeds={count!r} are no seeds")
        seeds = range(first, first + count)
    step = size or len(seeds)
    chunks = [seeds[start : start + step] for start in range(0, len(seeds), step)]
    return [{"first_seed": chunk.start, "n_seeds": len(chunk)} for chunk in chunks]


def only(specs: Sequence[RunSpec], wanted: Mapping[str, Sequence[Any]]) -> list[RunSpec]:
    """The runs whose parameters have one of the wanted values; ``ValueError`` if there is none."""
    notebooks = {spec.notebook: is_python(spec.language) for spec in specs}
    signatures = {path: read_signature(path, python) for path, python in notebooks.items()}
    names = {path: set(found.parameters) for path, found in signatures.items()}
    for spec in specs:
        names[spec.notebook] |= spec.params.keys()
    for name in wanted:
        if not any(name in known for known in names.values()):
            raise ValueError(f"--filter {name}: unknown parameter {name!r} in every notebook")
    points = {
        path: _grid_points(found, wanted) if wanted.keys() <= names[path] else []
        for path, found in signatures.items()
    }
    kept = [s for s in specs if any(p.items() <= s.params.items() for p in points[s.notebook])]
    if not kept:
        text = " ".join(f"{n}={','.join(map(str, values))}" for n, values in wanted.items())
        raise ValueError(f"--filter {text}: none of the {len(specs)} runs is like that")
    return kept


def shard(specs: Sequence[RunSpec], index: int, count: int) -> list[RunSpec]:
    """Part ``index`` of ``count`` (from 1): together the parts are all runs, each once."""
    return list(specs[index - 1 :: count])
