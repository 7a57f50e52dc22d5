"""Run records: what a notebook measured, checked, and written so that it is whole or absent."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

from cliplab.lab.keys import PINNED, digest, environment, installed

MIME = "application/vnd.cliplab.record+json"


def record(rows: Any, *, curves: Any = None, choices: Mapping[str, Any] | None = None) -> None:
    """Publish a notebook's measurements, once, as an output of its cell.

    ``rows``: dicts (or a DataFrame), one a trained model, with ``arm: str``, ``seed: int`` and
    columns of finite numbers, text, booleans or None. ``curves``: dicts with ``arm, seed, name, x,
    y``, where ``y`` may hold None. ``choices``: configurations frozen on the tuning seeds. Anything
    else is a ``ValueError`` naming arm, seed, column and value.
    """
    from IPython.display import display

    payload = {
        "rows": tidy_rows(rows),
        "curves": tidy_curves(curves if curves is not None else []),
        "choices": _json_able(choices or {}),
        "provenance": provenance(),
    }
    text = f"recorded {len(payload['rows'])} rows"
    display({MIME: payload, "text/plain": text}, raw=True)


def tidy_rows(rows: Any) -> list[dict[str, Any]]:
    """Rows with plain Python values, or a ``ValueError``; see :func:`record`.

    >>> tidy_rows([{"arm": "none", "seed": 0, "loss": float("nan")}])
    Traceback (most recent call last):
    ValueError: record: arm 'none', seed 0: loss = nan is not finite
    """
    hint = ""
    if hasattr(rows, "to_dict"):  # a DataFrame
        hint = " (a DataFrame turns None into NaN: pass a list of dicts)"
        rows = rows.to_dict("records")
    tidy = _plain_dicts(rows)
    if not tidy:
        raise ValueError("record: no rows")
    for row in tidy:
        where = _where(row)
        for name, value in row.items():
            if not isinstance(value, str | bool | int | float | None):
                raise ValueError(f"{where}: {name} = {value!r} is not a number, text, bool or None")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{where}: {name} = {value!r} is not finite{hint}")
    _refuse_duplicates([(row["arm"], row["seed"]) for row in tidy], "record")
    return tidy


def tidy_curves(curves: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Curves with plain Python values, or a ``ValueError``; see :func:`record`."""
    tidy = _plain_dicts(curves)
    for curve in tidy:
        where = _where(curve)
        if not isinstance(curve.get("name"), str):
            raise ValueError(f"{where}: a curve needs a name, got {curve.get('name')!r}")
        x, y = curve.get("x"), curve.get("y")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y):
            raise ValueError(
                f"{where}: curve {curve['name']}: x and y must be as long as each other"
            )
        for value in [*x, *(value for value in y if value is not None)]:
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(
                    f"{where}: curve {curve['name']}: {value!r} is not a finite number"
                )
    _refuse_duplicates([(c["arm"], c["seed"], c["name"]) for c in tidy], "record: curve")
    return tidy


def _plain_dicts(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    if not isinstance(rows, Iterable) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"record: expected a list of dicts, got {rows!r:.80}")
    return [{str(name): _plain(value) for name, value in row.items()} for row in rows]


def _where(row: Mapping[str, Any]) -> str:
    arm, seed = row.get("arm"), row.get("seed")
    where = f"record: arm {arm!r}, seed {seed!r}"
    if not isinstance(arm, str) or not arm:
        raise ValueError(f"{where}: arm must be text")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"{where}: seed must be an int")
    return where


def _refuse_duplicates(keys: list[tuple], what: str) -> None:
    seen: set[tuple] = set()
    for key in keys:
        if key in seen:
            raise ValueError(f"{what}: {key} is there twice; (arm, seed) must be unique")
        seen.add(key)


def _plain(value: Any) -> Any:
    """Python value of a numpy or torch scalar, array or tensor (lists: of each item)."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _json_able(choices: Mapping[str, Any]) -> Any:
    try:
        return json.loads(json.dumps(choices, allow_nan=False, default=_plain))
    except (TypeError, ValueError) as error:
        raise ValueError(f"record: choices cannot be stored as JSON: {error}") from None


@dataclass(frozen=True)
class RunRecord:
    """One finished run; ``directory`` is where it was read from and is not stored."""

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


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that readers see the old one or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}")
    try:
        with scratch.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def provenance() -> dict[str, Any]:
    """Where a number comes from: code, versions, hardware, threads, peak memory of this process."""
    import psutil
    import torch

    from cliplab import __version__

    sha = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain")
    cuda = torch.cuda.is_available()
    return {
        "git_sha": sha,
        "git_dirty": None if status is None else bool(status),
        "versions": {
            "cliplab": __version__,
            "python": platform.python_version(),
            **{name: installed(name) for name in PINNED},
        },
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "device": torch.cuda.get_device_name() if cuda else environment()["device"],
            "system": f"{platform.system()} {platform.machine()}",
        },
        "threads": {"torch": torch.get_num_threads(), "omp": os.environ.get("OMP_NUM_THREADS")},
        "kernel": "stock",
        "peak_memory_mb": _peak_memory_mb(),
        "recorded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _peak_memory_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
