"""The batch: which runs a command asks for, which are missing, and carrying those out."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from cliplab.lab.keys import code_key, run_key
from cliplab.lab.parameters import Parameter, coerce, read_parameters
from cliplab.lab.progress import Progress
from cliplab.lab.runs import RunRecord, write_atomic
from cliplab.lab.worker import (
    LocalExecutor,
    RunError,
    RunSpec,
    load_finished,
    rescue_notebook,
    run_one,
)

__all__ = [
    "BatchResult",
    "Failure",
    "LocalExecutor",
    "RunError",
    "RunSpec",
    "count_done",
    "find_notebooks",
    "plan",
    "read_presets",
    "run_batch",
    "run_one",
]

DEFAULT_BUDGET_S = 3600.0


def find_notebooks(names: Sequence[str], folder: Path) -> list[Path]:
    """Notebooks by stem, unique prefix or path, in order and each once; none named: all."""
    known = sorted(folder.glob("*.ipynb"))
    if not names and not known:
        raise ValueError(f"no notebooks in {folder}")
    found = [_find_notebook(name, known) for name in names] if names else known
    return list(dict.fromkeys(path.resolve() for path in found))


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
    """The notebook's presets from presets.toml beside it; ``quick`` is always there."""
    path = notebook.parent / "presets.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return {"quick": {}} | tables.get(notebook.stem, {})


def preset_params(notebook: Path, preset: str) -> dict[str, Any]:
    """Every parameter's value in a preset: the notebook's defaults, overlaid by its table."""
    declared, presets = read_parameters(notebook), read_presets(notebook)
    if preset not in presets:
        raise ValueError(f"{notebook.stem} has no preset {preset!r}: {', '.join(presets)}")
    defaults = {name: parameter.default for name, parameter in declared.items()}
    return defaults | _typed(declared, presets[preset])


def overrides(record: RunRecord, notebooks: Path) -> list[str]:
    """Names of a run's parameters, seeds aside, that are not as its preset has them."""
    wanted = preset_params(notebooks / f"{record.notebook}.ipynb", record.preset)
    seeds = ("first_seed", "n_seeds")
    return [n for n, value in record.params.items() if n not in seeds and wanted.get(n) != value]


def plan(
    notebooks: Sequence[Path],
    preset: str,
    results: Path,
    *,
    params: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: range | None = None,
    split_seeds: int | None = None,
    budget_s: float = DEFAULT_BUDGET_S,
) -> list[RunSpec]:
    """Every run asked for: notebooks x grid x chunks of at most ``split_seeds`` seeds.

    Parameters are the notebook's defaults, overlaid by the preset, ``params``, one point of the
    grid, and ``seeds``. ``ValueError`` if anything is unknown or ill-typed; touches no file.
    """
    specs: list[RunSpec] = []
    for notebook in notebooks:
        notebook = notebook.resolve()
        declared, code = read_parameters(notebook), code_key(notebook)
        try:
            base = preset_params(notebook, preset) | _typed(declared, params or {})
            for point in _grid_points(declared, grid or {}):
                for chunk in _seed_chunks(base | point, seeds, split_seeds):
                    values = base | point | chunk
                    varied = {name: values[name] for name in [*(params or {}), *point, *chunk]}
                    key = run_key(code, values)
                    specs.append(
                        RunSpec(
                            notebook=notebook,
                            preset=preset,
                            params=values,
                            key=key,
                            code_key=code,
                            directory=results.resolve() / notebook.stem / preset / key[:16],
                            budget_s=budget_s,
                            label=" ".join(
                                [notebook.stem, *(f"{n}={v}" for n, v in varied.items())]
                            ),
                        )
                    )
        except ValueError as error:
            raise ValueError(f"{notebook.stem}: {error}") from None
    return specs


def _typed(declared: Mapping[str, Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    for name in values:
        if name not in declared:
            raise ValueError(f"unknown parameter {name!r}; declared: {', '.join(declared)}")
    return {name: coerce(declared[name], value) for name, value in values.items()}


def _grid_points(
    declared: Mapping[str, Parameter], grid: Mapping[str, Sequence[Any]]
) -> list[dict[str, Any]]:
    axes: list[list[tuple[str, Any]]] = []
    for name, values in grid.items():
        axis = [(name, _typed(declared, {name: value})[name]) for value in values]
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


def count_done(specs: Sequence[RunSpec]) -> int:
    """How many runs have their record; ``ValueError`` if one is damaged."""
    return sum(load_finished(spec) is not None for spec in specs)


@dataclass(frozen=True)
class Failure:
    """A run that failed twice (or over budget), and the last line of its error."""

    spec: RunSpec
    error: str


@dataclass(frozen=True)
class BatchResult:
    """Records and failures, both in the order of the specs, whatever finished first."""

    records: list[RunRecord]
    failures: list[Failure]


def run_batch(
    specs: Sequence[RunSpec], executor: Executor, progress: Progress | None = None
) -> BatchResult:
    """Carry out the runs that are not done; a failed one is retried once and stops no other."""
    records: dict[Path, RunRecord] = {}
    for spec in specs:
        if record := load_finished(spec):
            records[spec.directory] = record
    todo = [spec for spec in specs if spec.directory not in records]
    failures: dict[Path, Failure] = {}
    attempts: Counter[Path] = Counter()
    futures: dict[Future[RunRecord], RunSpec] = {executor.submit(run_one, s): s for s in todo}
    while futures:
        done, _ = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
        for future in done:
            spec = futures.pop(future)
            try:
                records[spec.directory] = future.result()
            except Exception as error:
                attempts[spec.directory] += 1
                if attempts[spec.directory] == 1 and getattr(error, "retry", True):
                    futures[executor.submit(run_one, spec)] = spec
                    if progress:
                        progress.retried(spec, str(error))
                    continue
                failures[spec.directory] = Failure(spec, str(error))
                _keep_evidence(spec, str(error))
            if progress:
                progress.finished(spec, failures.get(spec.directory))
        if progress:
            progress.refresh([spec for future, spec in futures.items() if future.running()])
    return BatchResult(
        [records[spec.directory] for spec in specs if spec.directory in records],
        [failures[spec.directory] for spec in specs if spec.directory in failures],
    )


def _keep_evidence(spec: RunSpec, error: str) -> None:
    """What a worker that was killed could not leave: error.txt and the notebook so far."""
    spec.directory.mkdir(parents=True, exist_ok=True)
    rescue_notebook(spec.directory)
    if not (spec.directory / "error.txt").exists():
        write_atomic(spec.directory / "error.txt", f"{spec.label}\n{error}\n")
