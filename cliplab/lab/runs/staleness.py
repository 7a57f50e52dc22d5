"""Why a record is not of today's code: which cell, definition, data, version or parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cliplab.lab.runs.closure import Closure
from cliplab.lab.runs.keys import KIND, made_of, python_minor
from cliplab.lab.runs.versions import versions

DATA = "cliplab.lab.data."


def why_stale(
    code: Closure, made: Mapping[str, Any], provenance: Mapping[str, Any], code_key: str
) -> list[str]:
    """What changed since a record was made of ``made``, one reason each; none: it is current."""
    reasons = _versions(code, provenance.get("versions") or {})
    if code_key == code.key:
        return reasons
    if made.get("key") != KIND:
        return [f"measured by code before key {KIND}", *reasons]
    now = made_of(code)
    code_reasons = _cells(made["cells"], now["cells"])
    code_reasons += _definitions(made["definitions"], now["definitions"])
    return (code_reasons or ["an import or the order of statements"]) + reasons


def other_parameters(params: Mapping[str, Any], preset: Mapping[str, Any]) -> list[str]:
    """Where a run's parameters are not as its preset has them now."""
    return [
        f"parameter {name}: {params.get(name)!r}, the preset has {preset.get(name)!r}"
        for name in {**preset, **params}
        if params.get(name) != preset.get(name)
    ]


def _cells(before: list[str], now: list[str]) -> list[str]:
    if before == now:
        return []
    changed = [f"cell {i}" for i, cell in enumerate(now, 1) if cell not in before]
    gone = len([cell for cell in before if cell not in now])
    if not changed:
        changed = [f"{gone} cells are gone" if gone else "the order of the cells"]
    return changed


def _definitions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Changed, new and gone definitions; one that moved to another module is none of them."""
    old, new = (
        {(name.partition(":")[2], made) for name, made in made_of.items()}
        for made_of in (before, now)
    )
    reasons = []
    for name, made in sorted(now.items()):
        if (name.partition(":")[2], made) not in old:
            what = "changed" if name in before else "new"
            reasons.append(f"{_kind(name)} {name} {what}")
    for name, made in sorted(before.items()):
        if (name.partition(":")[2], made) not in new and name not in now:
            reasons.append(f"{_kind(name)} {name} gone")
    return reasons


def _kind(name: str) -> str:
    return "data" if name.startswith(DATA) else "definition"


def _versions(code: Closure, recorded: Mapping[str, str | None]) -> list[str]:
    now = versions(code.outside)
    reasons = [
        f"version {name}: {recorded[name]}, now {version}"
        for name, version in now.items()
        if name in recorded and recorded[name] != version
    ]
    python = ".".join(str(recorded.get("python", "")).split(".")[:2])
    if python and python != python_minor():
        reasons.append(f"version python: {python}, now {python_minor()}")
    return reasons
