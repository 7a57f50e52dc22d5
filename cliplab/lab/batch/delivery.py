"""Files of a run where its user wants them, beside those in the results folder."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cliplab.lab.batch.spec import Failure, RunSpec
from cliplab.lab.runs.files import write_atomic

FLAGS = ("output", "stdout_file", "stderr_file")


def placed(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The runs with the paths of their ``how`` filled in, as in ``out/{lr}.ipynb``.

    ``ValueError``: an unknown name, two runs that would write one output, one in whose place is a
    file that neither cliplab nor papermill wrote, or a path that is a notebook's or the results'.
    """
    found = [_filled_in(spec) for spec in specs]
    notebooks = {os.path.realpath(spec.notebook) for spec in found}
    owners: dict[Path, RunSpec] = {}
    for spec in found:
        for flag in FLAGS:
            if path := getattr(spec.how, flag):
                _refuse_kept(f"--{flag.replace('_', '-')} {path}", path, spec, notebooks)
        if path := spec.how.output:
            if path in owners:
                both = f"{owners[path].label} and {spec.label}"
                raise ValueError(f"--output {path} is that of two runs: {both}")
            _refuse_foreign(path)
            owners[path] = spec
    return found


def _filled_in(spec: RunSpec) -> RunSpec:
    names = {"notebook": spec.name, "preset": spec.preset, "key": spec.directory.name}
    names |= spec.params
    paths: dict[str, Any] = {
        name: _path(f"--{name.replace('_', '-')}", template, names)
        for name in FLAGS
        if (template := getattr(spec.how, name))
    }
    if spec.how.cwd and not spec.how.cwd.is_dir():
        raise ValueError(f"--cwd {spec.how.cwd} is no folder")
    return replace(spec, how=replace(spec.how, **paths)) if paths else spec


def _path(flag: str, template: Path, names: dict[str, Any]) -> Path:
    try:
        path = Path(os.path.abspath(str(template).format(**names)))
    except (LookupError, ValueError, AttributeError, TypeError):
        known = ", ".join(f"{{{name}}}" for name in names)
        raise ValueError(f"{flag} {template}: expected a path that may hold {known}") from None
    if path.is_dir():
        raise ValueError(f"{flag} {path} is a folder")
    return path


def _refuse_kept(what: str, path: Path, spec: RunSpec, notebooks: Container[str]) -> None:
    real = Path(os.path.realpath(path))
    if str(real) in notebooks:
        raise ValueError(f"{what} is a notebook to run")
    if real.parent in (spec.results, spec.directory) or real.with_name(".lock").exists():
        raise ValueError(f"{what} is in a folder that cliplab keeps: choose another")


def _refuse_foreign(path: Path) -> None:
    if os.path.lexists(path):
        with suppress(OSError, ValueError, TypeError, KeyError):
            if "papermill" in json.loads(path.read_text(encoding="utf-8"))["metadata"]:
                return
        raise ValueError(f"--output {path} is there and is no output of cliplab or papermill")


def deliver(spec: RunSpec, failed: bool) -> Failure | None:
    """Copy the notebook of a run that ended to its ``output``; the failure, if it cannot be."""
    path = spec.how.output
    source = spec.evidence if failed else spec.directory / "notebook.ipynb"
    if not path or not source:
        return None
    try:
        _refuse_foreign(path)
        write_atomic(path, source.read_text(encoding="utf-8"))
    except OSError as error:
        return Failure(spec, f"cannot write {path}: {error.strerror}")
    except ValueError as error:
        return Failure(spec, str(error))
    return None
